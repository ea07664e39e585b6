"""What goes into a JSON document."""

import datetime
from dataclasses import dataclass
from enum import IntFlag, StrEnum
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from calidrift_agent._command_line import jsonable


class Word(StrEnum):
    INPUT = "input"


class Flag(IntFlag):
    EARLY = 1
    COARSE = 4


@dataclass(frozen=True, slots=True)
class Bound:
    value: float
    where: Path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.5, 0.5),
        (float("nan"), None),
        (float("-inf"), None),
        (Word.INPUT, "input"),
        (Flag.EARLY | Flag.COARSE, 5),
        (Bound(1.5, Path("a/b")), {"value": 1.5, "where": "a/b"}),
        ({Word.INPUT: 1, 2: (3,)}, {"input": 1, "2": [3]}),
        (MappingProxyType({"a": {1, 0}}), {"a": [0, 1]}),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), None),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array([[1.0, np.inf]]), [[1.0, None]]),
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "2026-01-02T00:00:00+00:00"),
        ((n for n in (1, 2)), [1, 2]),
    ],
)
def test_values_become_what_json_can_say(value, expected):
    shown = jsonable(value)

    assert shown == expected
    assert type(shown) is type(expected)


@pytest.mark.parametrize("value", [object(), b"bytes", Bound])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(TypeError, match="has no JSON form"):
        jsonable({"a": value})
