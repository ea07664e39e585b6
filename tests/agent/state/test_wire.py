"""The body of a push: what was written is what is read, and damage is always noticed."""

import json
import struct
import zlib

import numpy as np
import pytest

from calidrift_agent._sketch import CELLS
from calidrift_agent._state import (
    MAX_PUSH_CAPTURES,
    PointMeta,
    Push,
    PushedCapture,
    SegmentCount,
    StateMeta,
    Window,
    decode_push,
    empty_values,
    encode_push,
)
from calidrift_agent._vocabulary import (
    COUNT_COLUMNS,
    REQUEST_COLUMNS,
    CaptureKind,
    Instrument,
    Strategy,
    WindowFlag,
)
from calidrift_agent.errors import StateFormatError

META = StateMeta(
    process="0" * 32,
    boot="",
    pid=1,
    started_ns=5,
    model="net",
    profile="",
    instrument=Instrument.RANGE,
    strategy=Strategy.INSTEAD,
    agent_version="0.1.0",
    window_seconds=10.0,
    points=(PointMeta("a:input", 1.0, -1.0, 1.0, ("b",)), PointMeta("c:input")),
)
CAPTURE = PushedCapture("é.safetensors", CaptureKind.UNIFORM, 7, None, 3)


def window(number, seed=0):
    rng = np.random.default_rng((seed, number))
    return Window(
        number=number,
        start_ns=number,
        end_ns=number + 1,
        flags=WindowFlag.EARLY,
        sampling_ratio=0.25,
        requests=rng.integers(0, 9, REQUEST_COLUMNS),
        segments=(SegmentCount("day", 2, 1),),
        counts=rng.integers(0, 9, (2, COUNT_COLUMNS)),
        values=empty_values(2),
        cells=rng.integers(0, 3, (2, CELLS)),
    )


def parts(body):
    (length,) = struct.unpack_from("<I", body, 12)
    return json.loads(body[16 : 16 + length]), body[16 + length :]


def rebuilt(header, rest=b""):
    blob = json.dumps(header).encode()
    return struct.pack("<8sII", b"CALIPUSH", 1, len(blob)) + blob + rest


def test_what_is_written_is_read():
    windows = (window(0), window(3))

    found = decode_push(encode_push(Push(META, windows, "{}", (CAPTURE,))))

    assert found.meta == META
    assert (found.profile, found.captures) == ("{}", (CAPTURE,))
    for one, other in zip(found.windows, windows, strict=True):
        assert (one.number, one.flags, one.segments) == (other.number, other.flags, other.segments)
        for name in ("requests", "counts", "values", "cells"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_nothing_is_said_where_nothing_is_given():
    found = decode_push(encode_push(Push(META)))

    assert (found.windows, found.profile, found.captures) == ((), None, None)
    assert decode_push(encode_push(Push(META, captures=()))).captures == ()


def test_every_turned_byte_of_a_window_is_noticed():
    body = encode_push(Push(META, (window(0),)))
    _, rest = parts(body)
    begin = len(body) - len(rest)

    for place in range(begin, len(body), 37):
        turned = bytearray(body)
        turned[place] ^= 1
        with pytest.raises(StateFormatError):
            decode_push(bytes(turned))


@pytest.mark.parametrize(
    "change",
    [
        {"meta": None},
        {"meta": {}},
        {"columns": [1, 2, 3]},
        {"columns": "all"},
        {"columns": [True, 2, 3]},
        {"windows": 2},
        {"windows": 0},
        {"windows": -1},
        {"windows": True},
        {"windows": 10**9},
        {"profile": 7},
        {"captures": "a"},
        {"captures": [1]},
        {"captures": [{"name": "a"}]},
        {"captures": [{"name": "a", "kind": "x", "captured_ns": 1, "segment": None, "size": 1}]},
        {
            "captures": [
                {"name": 1, "kind": "uniform", "captured_ns": 1, "segment": None, "size": 1}
            ]
        },
        {
            "captures": [
                {"name": "a", "kind": "uniform", "captured_ns": -1, "segment": None, "size": 1}
            ]
        },
        {
            "captures": [
                {"name": "\ud800", "kind": "uniform", "captured_ns": 1, "segment": None, "size": 1}
            ]
        },
        {"captures": [{}] * (MAX_PUSH_CAPTURES + 1)},
    ],
    ids=range(19),
)
def test_a_header_that_says_something_else_is_refused(change):
    header, rest = parts(encode_push(Push(META, (window(0),))))

    with pytest.raises(StateFormatError):
        decode_push(rebuilt({**header, **change}, rest))


@pytest.mark.parametrize("blob", [b"[]", b"{", b"\xff", b"[" * 100_000], ids=range(4))
def test_a_header_that_is_no_object_is_refused(blob):
    with pytest.raises(StateFormatError):
        decode_push(struct.pack("<8sII", b"CALIPUSH", 1, len(blob)) + blob)


def test_another_version_is_refused():
    body = encode_push(Push(META))

    for foreign in (b"CALIDRFT" + body[8:], body[:8] + struct.pack("<I", 2) + body[12:], b"x"):
        with pytest.raises(StateFormatError):
            decode_push(foreign)


def test_a_window_of_other_points_is_refused_though_its_checksum_fits():
    header, _ = parts(encode_push(Push(META, (window(0),))))
    blob = b"\0" * 500
    with pytest.raises(StateFormatError):
        decode_push(rebuilt(header, struct.pack("<II", len(blob), zlib.crc32(blob)) + blob))


def test_too_many_captures_are_not_written():
    with pytest.raises(ValueError, match="captures, at most"):
        encode_push(Push(META, captures=(CAPTURE,) * (MAX_PUSH_CAPTURES + 1)))
