"""Captures that are encrypted at rest."""

from __future__ import annotations

import stat
import subprocess
import sys

import numpy as np
import pytest
from cryptography.fernet import Fernet, MultiFernet

from calidrift_agent._capture import (
    CaptureOptions,
    CaptureRow,
    CaptureWriter,
    KeyRing,
    list_captures,
    read_capture,
)
from calidrift_agent._vocabulary import DropReason
from calidrift_agent.errors import CaptureError, ConfigurationError

NAME = "CALIDRIFT_CAPTURE_KEYS"
# Fixed keys of 32 equal bytes.
OLD, NEW, FOREIGN = ("QUFB" * 10 + "QUE=", "QkJC" * 10 + "QkI=", "Q0ND" * 10 + "Q0M=")


@pytest.fixture
def writer(tmp_path, monkeypatch):
    monkeypatch.setenv(NAME, OLD)
    options = CaptureOptions(encrypt=True, reservoir=0, seed=1)
    return CaptureWriter(tmp_path / "captures" / "p", "net", "", ("fc:input",), options)


def make_row(value: float = 7.0) -> CaptureRow:
    inputs = {"x": np.full((1, 64), value, np.float32)}
    return CaptureRow(inputs, np.array([value], np.float32), uncovered=True, time_ns=5)


def test_round_trip(writer):
    assert writer.offer(make_row()) is None
    (path,) = list_captures(writer.directory)
    assert path.name.endswith(".safetensors.fernet")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    capture = read_capture(path)
    assert capture.inputs["x"].tolist() == [[7.0] * 64]
    assert path.name.startswith(capture.id)


def test_nothing_can_be_read_without_the_key(writer):
    writer.offer(make_row())
    (path,) = list_captures(writer.directory)
    blob = path.read_bytes()
    for clear in (b"input:x", b"fc:input", b"maxima", np.float32(7).tobytes() * 4):
        assert clear not in blob
    assert b"fc:input" in Fernet(OLD).decrypt(blob)


def test_rotation(writer, monkeypatch):
    writer.offer(make_row(1.0))
    monkeypatch.setenv(NAME, f"{NEW}, {OLD}")
    writer.offer(make_row(2.0))
    paths = list_captures(writer.directory)
    assert sorted(read_capture(path).maxima[0] for path in paths) == [1.0, 2.0]
    monkeypatch.setenv(NAME, NEW)
    readable = []
    for path in paths:
        try:
            readable.append(read_capture(path).maxima[0])
        except CaptureError:
            continue
    assert readable == [2.0]
    # To seal old captures again with the new key is what MultiFernet calls to rotate.
    for path in paths:
        path.write_bytes(MultiFernet([Fernet(NEW), Fernet(OLD)]).rotate(path.read_bytes()))
    assert sorted(read_capture(path).maxima[0] for path in paths) == [1.0, 2.0]


@pytest.mark.parametrize("keys", [None, "", "no key at all"])
def test_a_key_that_vanished_is_counted(writer, monkeypatch, keys):
    assert writer.offer(make_row(1.0)) is None
    if keys is None:
        monkeypatch.delenv(NAME)
    else:
        monkeypatch.setenv(NAME, keys)
    assert writer.offer(make_row(2.0)) is DropReason.NO_KEY
    assert writer.count == 1
    monkeypatch.setenv(NAME, OLD)
    assert writer.offer(make_row(3.0)) is None


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (None, "CALIDRIFT_CAPTURE_KEYS is not set; set it to the key"),
        (FOREIGN, "the only key in CALIDRIFT_CAPTURE_KEYS does not fit"),
        (f"{FOREIGN},{NEW}", "none of the 2 keys in CALIDRIFT_CAPTURE_KEYS fits"),
        ("abc", "key 1 of 1 in CALIDRIFT_CAPTURE_KEYS is not a Fernet key"),
    ],
)
def test_a_reader_without_the_right_key_is_told(writer, monkeypatch, keys, sentence):
    writer.offer(make_row())
    (path,) = list_captures(writer.directory)
    monkeypatch.delenv(NAME) if keys is None else monkeypatch.setenv(NAME, keys)
    with pytest.raises(CaptureError, match=sentence) as caught:
        read_capture(path)
    assert path.name in str(caught.value)
    assert not keys or keys not in str(caught.value)


def test_a_sealed_file_that_is_damaged_is_refused(writer):
    writer.offer(make_row())
    (path,) = list_captures(writer.directory)
    blob = path.read_bytes()
    for damaged in (b"", blob[:-9], blob[:50] + b"AAAA" + blob[54:], b"\x80" * 40):
        path.write_bytes(damaged)
        with pytest.raises(CaptureError, match="or the file is damaged"):
            read_capture(path)


def test_the_limit_on_bytes_counts_what_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv(NAME, OLD)
    options = CaptureOptions(encrypt=True, max_bytes=5000, max_sample_bytes=2000, seed=1)
    writer = CaptureWriter(tmp_path / "p", "net", "", ("fc:input",), options)
    for value in range(12):
        writer.offer(make_row(value))
        size = sum(path.stat().st_size for path in list_captures(writer.directory))
        assert size == writer.size_bytes <= 5000
    assert writer.count > 1


def test_a_missing_or_unusable_key_is_an_error_at_once(monkeypatch):
    monkeypatch.delenv(NAME, raising=False)
    with pytest.raises(ConfigurationError, match=f"{NAME} is not set; set it to one or more"):
        KeyRing().require()
    with pytest.raises(ConfigurationError, match="is not set"):
        KeyRing().seal(b"")
    monkeypatch.setenv(NAME, f"{OLD},{OLD[:-1]}")
    with pytest.raises(ConfigurationError, match=r"key 2 of 2 .* is not a Fernet key") as caught:
        KeyRing().require()
    assert OLD[:-1] not in str(caught.value)
    assert not KeyRing().usable


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setenv(NAME, OLD)
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    with pytest.raises(ConfigurationError, match=r"calidrift\[crypto\]"):
        KeyRing().require()


def test_the_package_is_loaded_only_where_it_is_needed():
    code = "import sys, calidrift_agent._capture; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
