from __future__ import annotations

import errno
import json
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from calidrift_agent._capture import (
    CaptureIndex,
    CaptureOptions,
    CaptureRow,
    CaptureWriter,
    list_captures,
    read_capture,
    read_index,
)
from calidrift_agent._capture import _file as file_module
from calidrift_agent._capture._index import SHARED
from calidrift_agent._vocabulary import CaptureKind, DropReason
from calidrift_agent.errors import CaptureError, ConfigurationError

DTYPES = [
    "bool",
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    *("float16", "float32", "float64"),
]
POINTS = ("conv:input", "fc:input", "голова:input")


def make_row(value: float = 1.0, uncovered: bool = True, **changes) -> CaptureRow:
    fields = {
        "inputs": {"x": np.full((1, 3, 4), value, np.float32)},
        "maxima": np.array([value, value * 2, -0.0], np.float32),
        "uncovered": uncovered,
        "time_ns": 1_700_000_000_000_000_000,
    }
    return CaptureRow(**{**fields, **changes})


@pytest.fixture
def make_writer(tmp_path):
    def make(**options) -> CaptureWriter:
        options.setdefault("seed", 1)
        return CaptureWriter(
            tmp_path / "captures" / "p", "net", "d" * 64, POINTS, CaptureOptions(**options)
        )

    return make


def only_capture(writer):
    (path,) = list_captures(writer.directory)
    return read_capture(path)


def test_round_trip_of_every_field(make_writer):
    writer = make_writer(reservoir=0)
    row = make_row(
        segment="ночь",
        session="user-7",
        inclusion=0.01,
        row=5,
        maxima=np.array([1.5, np.inf, np.nan], np.float32),
    )
    assert writer.offer(row) is None
    capture = only_capture(writer)
    assert np.array_equal(capture.inputs["x"], row.inputs["x"])
    assert np.array_equal(capture.maxima, row.maxima, equal_nan=True)
    assert capture.points == POINTS
    assert (capture.model, capture.profile) == ("net", "d" * 64)
    assert (capture.time_ns, capture.segment, capture.row) == (row.time_ns, "ночь", 5)
    assert (capture.kind, capture.inclusion) == (CaptureKind.UNCOVERED, 0.01)
    assert len(capture.session) == 16
    assert "user-7" not in capture.session
    assert capture.id == list_captures(writer.directory)[0].stem


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 5)])
def test_every_kind_of_tensor_survives(make_writer, dtype, shape):
    writer = make_writer(reservoir=0)
    array = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape).astype(dtype)
    assert writer.offer(make_row(inputs={"x": array, "": array})) is None
    capture = only_capture(writer)
    for name in ("x", ""):
        assert capture.inputs[name].dtype == array.dtype
        assert capture.inputs[name].shape == shape
        assert np.array_equal(capture.inputs[name], array)


def test_transposed_and_swapped_arrays_are_written_as_they_are_seen(make_writer):
    """safetensors 0.8 writes the raw memory of a transposed array under its shape."""
    writer = make_writer(reservoir=0)
    array = np.arange(24.0).reshape(2, 3, 4)
    inputs = {
        "transposed": array.transpose(2, 0, 1),
        "strided": array[:, ::2, 1::2],
        "fortran": np.asfortranarray(array),
        "swapped": array.astype(">f8"),
    }
    writer.offer(make_row(inputs=inputs))
    capture = only_capture(writer)
    for name, wanted in inputs.items():
        assert np.array_equal(capture.inputs[name], wanted), name


def test_bfloat16_is_tagged_and_widened_exactly(make_writer):
    writer = make_writer(reservoir=0)
    values = np.array([1.0, -2.5, 0.0, 3.0e38, np.inf], np.float32)
    words = (values.view(np.uint32) >> 16).astype(np.uint16)
    exact = (words.astype(np.uint32) << 16).view(np.float32)
    writer.offer(make_row(inputs={"x": words, "ids": words}, bfloat16=("x", "absent")))
    capture = only_capture(writer)
    assert capture.bfloat16 == ("x",)
    assert np.array_equal(capture.as_float32("x"), exact)
    assert capture.as_float32("ids").dtype == np.float32
    assert np.array_equal(capture.as_float32("ids"), words.astype(np.float32))


def test_files_are_private_and_never_pickled(make_writer):
    writer = make_writer()
    writer.offer(make_row())
    assert stat.S_IMODE(writer.directory.stat().st_mode) == 0o700
    files = list(writer.directory.iterdir())
    assert len(files) == 3
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.suffix in {".safetensors", ".json"}


def test_nothing_is_made_before_the_first_capture(make_writer):
    writer = make_writer(reservoir=0)
    assert writer.offer(make_row(uncovered=False)) is None
    writer.flush()
    assert not writer.directory.exists()
    assert list_captures(writer.directory) == []
    assert read_index(writer.directory) is None


def test_covered_rows_go_to_the_uniform_store_only(make_writer):
    writer = make_writer(reservoir=2)
    for value in (1, 2):
        writer.offer(make_row(value, uncovered=False))
    kinds = [read_capture(path).kind for path in list_captures(writer.directory)]
    assert kinds == [CaptureKind.UNIFORM] * 2


def test_uniform_inclusion_follows_the_number_seen(make_writer):
    writer = make_writer(reservoir=5, max_count=5)
    for value in range(40):
        assert writer.offer(make_row(value, uncovered=False, inclusion=0.5)) is None
    writer.flush()
    captures = [read_capture(path) for path in list_captures(writer.directory)]
    assert len(captures) == 5 == writer.count
    assert {capture.inclusion for capture in captures} == {0.5 * 5 / 40}
    index = read_index(writer.directory)
    rates = {SHARED: 5 / 40}
    assert index == CaptureIndex("net", "d" * 64, index.points_digest, 40, 0, 0, 0, rates)


def test_the_index_follows_by_itself(make_writer):
    writer = make_writer(reservoir=1, max_count=1)
    stale = []
    for value in range(2000):
        writer.offer(make_row(value, uncovered=False))
        stale.append((value + 1) / read_index(writer.directory).seen)
    assert max(stale) <= 1.05
    writer.flush()
    assert read_index(writer.directory).reservoirs == {SHARED: 1 / 2000}


def test_count_limit_keeps_the_extremes(make_writer):
    writer = make_writer(reservoir=0, max_count=10)
    rng = np.random.default_rng(2)
    maxima = rng.lognormal(size=(100, 3)).astype(np.float32)
    reasons = [writer.offer(make_row(maxima=row)) for row in maxima]
    assert reasons[:10] == [None] * 10
    assert set(reasons[10:]) == {DropReason.CAPTURE_LIMIT}
    captures = [read_capture(path) for path in list_captures(writer.directory)]
    assert len(captures) == 10 == writer.count
    best = np.max([capture.maxima for capture in captures], axis=0)
    assert np.array_equal(best, maxima.max(axis=0))
    writer.flush()
    index = read_index(writer.directory)
    assert (index.seen, index.seen_uncovered, index.dropped) == (100, 100, 90)


def test_byte_limit_holds_for_both_stores(make_writer):
    limit = 20_000
    writer = make_writer(reservoir=4, max_count=64, max_bytes=limit, max_sample_bytes=4000)
    for value in range(60):
        writer.offer(make_row(value, inputs={"x": np.zeros(600, np.float32)}))
        size = sum(path.stat().st_size for path in list_captures(writer.directory))
        assert size == writer.size_bytes <= limit
    kinds = [read_capture(path).kind for path in list_captures(writer.directory)]
    assert kinds.count(CaptureKind.UNIFORM) == 4
    assert len(kinds) > 4


def test_a_reservoir_without_room_stays_uniform_and_smaller(make_writer):
    writer = make_writer(reservoir=10, max_count=10, max_bytes=9000, max_sample_bytes=4000)
    reasons = [
        writer.offer(make_row(v, uncovered=False, inputs={"x": np.zeros(600, np.float32)}))
        for v in range(30)
    ]
    assert DropReason.CAPTURE_LIMIT in reasons
    assert 0 < writer.count < 10
    writer.flush()
    captures = [read_capture(path) for path in list_captures(writer.directory)]
    assert {capture.inclusion for capture in captures} == {writer.count / 30}


def test_too_large_rows_are_dropped_and_counted(make_writer):
    writer = make_writer(max_sample_bytes=100)
    large = make_row(inputs={"x": np.zeros(101, np.uint8)})
    assert writer.offer(large) is DropReason.CAPTURE_LIMIT
    assert writer.count == 0
    assert writer.offer(make_row(inputs={"x": np.zeros(100, np.uint8)})) is None


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"x": np.zeros(2, np.complex64)},
        {"x": np.array(["text"])},
        {"x": "text"},
        {"\ud800": np.zeros(2)},
    ],
)
def test_unsuitable_inputs_are_dropped(make_writer, inputs):
    writer = make_writer()
    assert writer.offer(make_row(inputs=inputs)) is DropReason.UNSUITABLE_INPUT
    assert writer.count == 0


def test_only_permitted_inputs_are_kept(make_writer):
    writer = make_writer(inputs=("image", "mask"), reservoir=0)
    ids = np.arange(3)
    assert writer.offer(make_row(inputs={"ids": ids})) is DropReason.UNSUITABLE_INPUT
    writer.offer(make_row(inputs={"ids": ids, "image": ids}, bfloat16=("ids",)))
    capture = only_capture(writer)
    assert set(capture.inputs) == {"image"}
    assert capture.bfloat16 == ()


def test_redaction_has_the_last_word(make_writer):
    def redact(inputs):
        if inputs["x"].max() > 5:
            raise SystemExit(3) if inputs["x"].max() > 10 else RuntimeError("cannot say")
        return None if inputs["x"].max() > 3 else {"x": inputs["x"] * 0}

    writer = make_writer(redact=redact, reservoir=0)
    assert writer.offer(make_row(90.0)) is DropReason.REDACTED
    assert writer.offer(make_row(9.0)) is DropReason.REDACTED
    assert writer.offer(make_row(4.0)) is DropReason.REDACTED
    assert writer.count == 0
    assert writer.offer(make_row(2.0)) is None
    assert not only_capture(writer).inputs["x"].any()


@pytest.mark.parametrize("word", [7, [1], np.zeros(3), {}])
def test_a_redaction_that_answers_something_else_keeps_nothing(make_writer, word):
    writer = make_writer(redact=lambda inputs: word)
    assert writer.offer(make_row()) is DropReason.REDACTED
    assert writer.count == 0


def test_wrong_maxima_are_refused(make_writer):
    with pytest.raises(ConfigurationError, match="3 points"):
        make_writer().offer(make_row(maxima=np.zeros(2, np.float32)))


@pytest.mark.parametrize("inclusion", [0.0, -1.0, 1.5, float("nan")])
def test_an_inclusion_that_is_no_probability_is_refused(make_writer, inclusion):
    with pytest.raises(ConfigurationError, match="probability in"):
        make_writer().offer(make_row(inclusion=inclusion))


def refuse(code):
    def fail(descriptor):
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_drops_and_leaves_nothing(make_writer, monkeypatch, code):
    writer = make_writer(reservoir=2)
    assert writer.offer(make_row(1.0)) is None
    before = {path.name for path in writer.directory.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(file_module.os, "fsync", refuse(code))
        assert writer.offer(make_row(2.0)) is DropReason.DISK_FULL
        assert writer.offer(make_row(2.0, uncovered=False)) in {None, DropReason.DISK_FULL}
    assert {path.name for path in writer.directory.iterdir()} == before
    assert writer.count == 2
    assert writer.offer(make_row(3.0)) is None
    assert read_index(writer.directory).dropped == 1


def test_other_failures_are_raised_and_leave_nothing(make_writer, monkeypatch):
    writer = make_writer(reservoir=0)
    monkeypatch.setattr(file_module.os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        writer.offer(make_row())
    assert list(writer.directory.iterdir()) == []
    assert (writer.count, writer.size_bytes) == (0, 0)


def test_a_file_that_somebody_deleted_does_not_matter(make_writer):
    writer = make_writer(reservoir=0, max_count=1)
    writer.offer(make_row(1.0))
    list_captures(writer.directory)[0].unlink()
    assert writer.offer(make_row(2.0)) is DropReason.CAPTURE_LIMIT
    assert only_capture(writer).maxima[0] == 2.0


def damage(path: Path, text: dict[str, str], tensors=None) -> Path:
    blob = path.read_bytes()
    header = json.loads(blob[8 : 8 + struct.unpack_from("<Q", blob)[0]])
    metadata = {**header["__metadata__"], **text}
    loaded = safetensors.numpy.load(blob) if tensors is None else tensors
    path.write_bytes(safetensors.numpy.save(loaded, metadata=metadata))
    return path


@pytest.fixture
def capture_path(make_writer):
    writer = make_writer(reservoir=0)
    writer.offer(make_row())
    return list_captures(writer.directory)[0]


def test_every_truncation_is_refused(capture_path):
    blob = capture_path.read_bytes()
    for length in [0, 1, 7, 8, 9, *range(10, len(blob), 61), len(blob) - 1]:
        capture_path.write_bytes(blob[:length])
        with pytest.raises(CaptureError, match=f"capture .*{capture_path.name}"):
            read_capture(capture_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"format": "weights"}, "not a calidrift capture"),
        ({"version": "2"}, "newer calidrift"),
        ({"version": "x"}, "damaged"),
        ({"kind": "everything"}, "damaged"),
        ({"time_ns": "noon"}, "damaged"),
        ({"inclusion": "0.0"}, "not a probability"),
        ({"inclusion": "nan"}, "not a probability"),
        ({"points": "[]"}, "names 0 points"),
        ({"points": '["a","b","c"]'}, "do not fit their digest"),
        ({"points": "7"}, "damaged"),
        ({"points": "[" * 100_000}, "damaged"),
        ({"version": "0"}, "count from 1"),
        ({"id": "../../etc/passwd"}, "not one of ours"),
        ({"row": "-1"}, "impossible"),
        ({"time_ns": "9" * 30}, "impossible"),
        ({"bfloat16": '["y"]'}, "no bfloat16 patterns"),
        ({"bfloat16": '["x"]'}, "no bfloat16 patterns"),
    ],
)
def test_damaged_text_is_refused(capture_path, text, message):
    with pytest.raises(CaptureError, match=message):
        read_capture(damage(capture_path, text))


def test_missing_tensors_are_refused(capture_path):
    maxima = {"maxima": np.zeros(3, np.float32)}
    with pytest.raises(CaptureError, match="holds no inputs"):
        read_capture(damage(capture_path, {}, maxima))
    with pytest.raises(CaptureError, match="damaged"):
        read_capture(damage(capture_path, {}, {"input:x": np.zeros(3)}))
    with pytest.raises(CaptureError, match="shape"):
        read_capture(damage(capture_path, {}, {"input:x": np.zeros(3), "maxima": np.zeros(3)}))


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    for content in (
        b"",
        b"\x80\x04pickle" * 10,
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 20) + b'{"__metadata__": 1  }',
        safetensors.numpy.save({"weight": np.zeros(3)}),
    ):
        path.write_bytes(content)
        with pytest.raises(CaptureError, match="not a"):
            read_capture(path)
    with pytest.raises(CaptureError, match="cannot be read"):
        read_capture(tmp_path / "absent.safetensors")


def test_a_file_larger_than_any_capture_is_not_read(capture_path, monkeypatch):
    monkeypatch.setattr(file_module, "_MAX_FILE_BYTES", 10)
    with pytest.raises(CaptureError, match="larger than any capture"):
        read_capture(capture_path)


@pytest.mark.parametrize("length", [0, 1, 10**9, 2**63, 2**64 - 1])
def test_a_header_that_lies_about_its_length_is_refused(capture_path, length):
    blob = capture_path.read_bytes()
    capture_path.write_bytes(struct.pack("<Q", length) + blob[8:])
    with pytest.raises(CaptureError, match="not a safetensors file"):
        read_capture(capture_path)


@pytest.mark.parametrize("name", ["capture.safetensors", "index.json"])
def test_a_pipe_or_device_among_the_captures_is_not_waited_for(capture_path, name):
    path = capture_path.parent / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(CaptureError, match="not a file"):
        read_capture(path if name != "index.json" else capture_path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(CaptureError, match="not a file"):
        read_capture(path if name != "index.json" else capture_path)
    with pytest.raises(CaptureError, match="null"):
        read_capture("a\0b")


def index_text(**changes) -> str:
    index = CaptureIndex("net", "", "", 9, 1, 4)
    return json.dumps({**json.loads(index.to_json()), **changes})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "damaged"),
        ('{"version": 2}', "damaged"),
        ("{}", "damaged"),
        ('{"version": 3}', "format 3"),
        ("[" * 100_000, "cannot be read"),
        (index_text(seen="many"), "damaged"),
        (index_text(seen=-3), "damaged"),
        (index_text(dropped=True), "damaged"),
        (index_text(reservoirs=[1]), "damaged"),
        (index_text(reservoirs={"*": 0}), "damaged"),
        (index_text(chances={"a": 1.5}), "damaged"),
        (index_text(chances={"a": "b"}), "damaged"),
        (index_text(surplus=1), "damaged"),
        (index_text(model=None), "damaged"),
    ],
)
def test_a_damaged_index_is_refused(capture_path, content, message):
    (capture_path.parent / "index.json").write_text(content)
    with pytest.raises(CaptureError, match=message):
        read_capture(capture_path)


def test_unfinished_files_are_not_listed(capture_path):
    (capture_path.parent / ".x.safetensors.tmp").write_bytes(b"")
    (capture_path.parent / ".x.safetensors").write_bytes(b"")
    assert list_captures(capture_path.parent.parent) == [capture_path]


def test_an_index_without_rows_says_one():
    index = CaptureIndex("net", "", "", 0, 0, 0)
    assert index.inclusion(CaptureKind.UNIFORM) == 1.0
    assert index.inclusion(CaptureKind.UNCOVERED) == 1.0


def test_captures_need_no_torch():
    code = "import sys, calidrift_agent._capture; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
