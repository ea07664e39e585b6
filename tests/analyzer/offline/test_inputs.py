"""Reading recorded inputs: every format gives the same rows, and what does not fit is named."""

import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from calidrift_agent._vocabulary import CaptureKind
from calidrift_agent.errors import CaptureError
from calidrift_analyzer.errors import ContractError
from calidrift_analyzer.offline._inputs import InputSpec, Recording, read_batches, shapes_of
from calidrift_analyzer.offline._sources import Source


class Two(nn.Module):
    def forward(self, image, mask, flag=None, *, extra=None):
        return image


class Open(nn.Module):
    def forward(self, *args, **kwargs):
        return args[0]


ONE = InputSpec.of(nn.Linear(4, 2), (torch.zeros(2, 4),))
TWO = InputSpec.of(Two(), (torch.zeros(2, 3, 8), torch.zeros(2, 3, dtype=torch.long)))


def source(path, folder=""):
    return Source(path, path.name, folder)


def rows_of(path, spec=ONE, rows=32):
    recording = Recording(source(path), spec)
    batches = list(read_batches([recording], rows))
    assert sum(len(labels) for _, labels in batches) == recording.rows
    return {name: torch.cat([batch[name] for batch, _ in batches]) for name in batches[0][0]}


VALUES = np.random.default_rng(3).normal(size=(70, 4)).astype(np.float32)


@pytest.mark.parametrize(
    "write",
    [
        lambda path, x: np.save(path.with_suffix(".npy"), x),
        lambda path, x: np.save(path.with_suffix(".npy"), np.asfortranarray(x)),
        lambda path, x: np.save(path.with_suffix(".npy"), x.astype(">f8")),
        lambda path, x: np.savez(path.with_suffix(".npz"), x),
        lambda path, x: np.savez_compressed(path.with_suffix(".npz"), input=x),
        lambda path, x: np.savez(path.with_suffix(".npz"), arg0=x),
        lambda path, x: save_file({"input": torch.from_numpy(x)}, path.with_suffix(".safetensors")),
        lambda path, x: save_file({"arg0": torch.from_numpy(x)}, path.with_suffix(".safetensors")),
    ],
    ids=["npy", "fortran", "big-endian", "npz", "named", "placed", "safetensors", "places"],
)
@pytest.mark.parametrize("rows", [1, 32, 1000])
def test_every_format_gives_the_same_rows(tmp_path, write, rows):
    write(tmp_path / "x", VALUES)
    (path,) = tmp_path.iterdir()
    found = rows_of(path, rows=rows)
    assert found["input"].dtype == torch.float32
    np.testing.assert_array_equal(found["input"].numpy(), VALUES)


def test_a_capture_brings_its_segment_time_and_kind(tmp_path, write_capture):
    path = tmp_path / "c.safetensors"
    write_capture(path, VALUES[:1], segment="night", kind=CaptureKind.UNCOVERED)
    found = Recording(source(path), ONE)
    assert (found.rows, found.segment, found.time_ns) == (1, "night", 7)
    assert found.selected
    assert found.is_capture
    np.testing.assert_array_equal(found.read(0, 1)["input"].numpy(), VALUES[:1])


def test_bfloat16_patterns_are_what_they_mean(tmp_path, write_capture):
    path = tmp_path / "c.safetensors"
    tensor = torch.from_numpy(VALUES[:1]).bfloat16()
    write_capture(path, tensor.view(torch.int16).numpy().view(np.uint16), bfloat16=("input",))
    found = Recording(source(path), ONE).read(0, 1)["input"]
    assert torch.equal(found, tensor.float())


def test_other_files_have_the_time_of_their_last_change(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, VALUES)
    os.utime(path, ns=(5, 1_700_000_000_000_000_000))
    found = Recording(source(path), ONE)
    assert found.time_ns == 1_700_000_000_000_000_000
    assert not found.is_capture


def test_rows_of_several_files_share_batches_where_they_fit(tmp_path):
    sizes = {"a": (5, 4), "b": (3, 4), "c": (2, 4)}
    for name, shape in sizes.items():
        np.save(tmp_path / f"{name}.npy", np.zeros(shape, np.float32))
    recordings = [Recording(source(tmp_path / f"{name}.npy"), ONE) for name in sizes]
    labels = [
        [(recording.source.name, row) for recording, row in labels]
        for _, labels in read_batches(recordings, 4)
    ]
    assert [len(one) for one in labels] == [4, 4, 2]
    assert labels[1] == [("a.npy", 4), ("b.npy", 0), ("b.npy", 1), ("b.npy", 2)]


def test_texts_of_different_lengths_do_not(tmp_path):
    for name, length in {"a": 3, "b": 5}.items():
        np.savez(
            tmp_path / f"{name}.npz",
            image=np.zeros((2, length, 8), np.float32),
            mask=np.ones((2, length), np.int32),
        )
    recordings = [Recording(source(tmp_path / f"{name}.npz"), TWO) for name in ("a", "b")]
    batches = list(read_batches(recordings, 32))
    assert [len(labels) for _, labels in batches] == [2, 2]
    assert batches[1][0]["mask"].dtype == torch.long
    assert shapes_of(batches[1][0]) == "image (2, 5, 8), mask (2, 5)"


def test_further_inputs_pass_where_the_model_takes_them(tmp_path):
    given = {"image": np.zeros((2, 3, 8), np.float32), "mask": np.ones((2, 3), np.int64)}
    np.savez(tmp_path / "x.npz", **given, flag=np.ones(2))
    assert set(rows_of(tmp_path / "x.npz", TWO)) == {"image", "mask", "flag"}
    np.savez(tmp_path / "y.npz", **given, other=np.ones(2))
    with pytest.raises(ContractError, match="image, mask, other, but the model takes image, mask"):
        Recording(source(tmp_path / "y.npz"), TWO)
    anything = InputSpec.of(Open(), (torch.zeros(2, 3, 8),))
    np.savez(tmp_path / "z.npz", arg0=given["image"], other=np.ones(2))
    assert set(rows_of(tmp_path / "z.npz", anything)) == {"arg0", "other"}


@pytest.mark.parametrize(
    ("given", "spec", "told"),
    [
        ({"image": np.zeros((2, 3, 8))}, TWO, "takes image, mask"),
        ({"input": np.zeros((2, 2, 4))}, ONE, r"shape \(2, 2, 4\), but the model takes 2 dim"),
        ({"input": np.zeros(4)}, ONE, "a single row needs a first dimension of 1"),
        ({"input": np.zeros((2, 4), np.uint8)}, ONE, "uint8, but the model takes float32"),
        ({"input": np.zeros((0, 4))}, ONE, "input 0"),
        ({"input": np.float32(1)}, ONE, "input 0"),
        (
            {"image": np.zeros((2, 3, 8)), "mask": np.ones((3, 3), np.int64)},
            TWO,
            "image 2, mask 3",
        ),
        ({"input": np.array([["a"] * 4])}, ONE, "which is no number"),
    ],
    ids=["missing", "dims", "one-row", "type", "empty", "scalar", "rows", "text"],
)
def test_what_is_not_the_models_is_named(tmp_path, given, spec, told):
    path = tmp_path / "x.npz"
    np.savez(path, **given)
    with pytest.raises(ContractError, match=told) as caught:
        Recording(source(path), spec).read(0, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut short", b"\x93NUMPY"])
def test_damage_is_one_sentence(tmp_path, suffix, content):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(ContractError, match="cannot be read") as caught:
        Recording(source(path), ONE)
    assert "x" in str(caught.value)


def test_pickles_are_never_loaded(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ContractError, match="cannot be read"):
        Recording(source(tmp_path / "x.npy"), ONE)


def test_a_damaged_capture_is_named(tmp_path, write_capture):
    path = tmp_path / "c.safetensors"
    write_capture(path, VALUES[:1])
    path.write_bytes(path.read_bytes().replace(b'"id"', b'"jd"'))
    with pytest.raises(CaptureError, match=r"c\.safetensors: damaged"):
        Recording(source(path), ONE)


def test_one_array_is_not_enough_for_two_inputs(tmp_path):
    np.save(tmp_path / "x.npy", VALUES)
    with pytest.raises(ContractError, match="holds one array, but the model takes image, mask"):
        Recording(source(tmp_path / "x.npy"), TWO)


def test_inputs_that_are_no_tensors_are_refused():
    with pytest.raises(ContractError, match="gives a int among the inputs"):
        InputSpec.of(Two(), (torch.zeros(2, 4), 3))
