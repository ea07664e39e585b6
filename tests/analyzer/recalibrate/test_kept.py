"""Captures that a recalibration reads, while the agent replaces them."""

from pathlib import Path

import pytest

from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.recalibrate import _recalibrate as module
from calidrift_analyzer.recalibrate import recalibrate
from calidrift_analyzer.recalibrate._kept import kept


@pytest.fixture
def captures(tmp_path):
    found = [tmp_path / process / f"{name}.safetensors" for process in "ab" for name in "xy"]
    for number, path in enumerate(found):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%d" % number)
    return found


def test_what_is_replaced_meanwhile_is_still_read(captures):
    with kept(captures) as copies:
        for path in captures:
            path.unlink()
        assert [path.read_bytes() for path in copies.files] == [b"0", b"1", b"2", b"3"]
        assert [path.name for path in copies.files] == [path.name for path in captures]
        assert all(copies.folder in path.parents for path in copies.files)
        assert copies.folder.stat().st_mode & 0o777 == 0o700

    assert not copies.folder.exists()


def test_what_is_gone_already_is_left_out(captures):
    captures[1].unlink()

    with kept(captures) as copies:
        assert [path.read_bytes() for path in copies.files] == [b"0", b"2", b"3"]


def test_what_cannot_be_copied_is_left_for_the_child_to_explain(captures):
    captures[1].unlink()
    captures[1].mkdir()

    with kept(captures) as copies:
        assert copies.files[1] == captures[1]


def test_the_child_reads_the_copies(captures, tmp_path, monkeypatch):
    contract = ModelContract(
        name="net",
        root=tmp_path,
        factory="user:factory",
        example_inputs="user:example_inputs",
        calibration="user:calibration",
        evaluate="user:evaluate",
        registry=tmp_path / "registry",
    )
    seen = []

    def run_in_child(job, request, *, progress, scratch):
        for path in captures:
            path.unlink()  # while the child still loads torch
        seen.extend(Path(path).read_bytes() for path in request["samples"])
        assert all(scratch[0] in Path(path).parents for path in request["samples"])
        return {"candidates": []}

    monkeypatch.setattr(module, "run_in_child", run_in_child)

    assert recalibrate(contract, tmp_path / "out", samples=captures) == ()
    assert seen == [b"0", b"1", b"2", b"3"]
