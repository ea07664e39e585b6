"""What is put together to one unit of inference, and when it is counted."""

import gc
from typing import NamedTuple

import numpy as np
import pytest

from calidrift_agent._observe import ObservedCall, Request, RequestContext
from calidrift_agent._taps import RowMaxima
from calidrift_agent._watch import _units
from calidrift_agent._watch._units import UnitBook


class Counted(NamedTuple):
    points: list[int]
    absmax: list[float]
    segment: str | None


class FakeFolder:
    def __init__(self):
        self.units = []

    def fold_unit(self, points, absmax, segment, buffer):
        self.units.append(Counted(points.tolist(), absmax.tolist(), segment))


@pytest.fixture
def folder():
    return FakeFolder()


@pytest.fixture
def book(folder):
    return UnitBook(folder, points=3)


def begun(rows=2, unit=0):
    request = Request(None, 16, lambda most: 0)
    request.observed, request.rows, request.unit = True, rows, unit
    return request


def call(request, *, step=False, rows=2, context=None):
    unit = 0 if request is None else request.unit
    found = ObservedCall(rows, unit, context or RequestContext(segment="night"), 0)
    found.request, found.step = request, step
    return found


def maxima(points, *rows):
    absmax = np.array(rows, np.float64).T
    return RowMaxima(np.array(points), absmax, np.zeros(len(rows), np.bool_))


def test_the_largest_of_all_calls_at_the_row_of_the_request(book, folder):
    request = begun(unit=1)
    assert book.add(call(request), maxima([0, 2], [9, 9], [1, 5]), whole=True)
    assert not book.add(call(request, step=True), maxima([0, 1], [8, 8], [3, 2]), whole=True)
    book.settle(None)
    assert folder.units == []
    request.close()
    book.settle(None)
    book.settle(None)
    assert folder.units == [Counted([0, 1, 2], [3, 2, 5], "night")]


def test_a_call_of_no_request_is_passed_over(book, folder):
    assert not book.add(call(None), maxima([0], [1], [1]), whole=True)
    book.settle(None, everything=True)
    assert folder.units == []


def test_a_request_ends_with_its_cache(book, folder):
    class Cache:
        pass

    import weakref

    cache = Cache()
    request = begun()
    book.add(call(request), maxima([0], [1], [1]), whole=True)
    assert not request.ended  # its first call is still running
    request.follow(weakref.ref(cache))
    book.settle(None)
    assert not folder.units
    request.busy = True  # a step runs, and replaces the cache
    del cache
    gc.collect()
    assert not request.ended
    request.busy = False
    book.settle(None)
    assert len(folder.units) == 1


def test_a_request_without_a_cache_ends_with_its_call(book, folder):
    request = begun()
    request.follow(None)
    book.add(call(request), maxima([0], [1], [1]), whole=True)
    book.settle(None)
    assert len(folder.units) == 1


@pytest.mark.parametrize("step", [False, True])
def test_a_call_that_could_not_be_read_makes_the_request_no_unit(book, folder, step):
    request = begun()
    book.add(call(request), maxima([0], [1], [1]), whole=step)
    book.add(call(request, step=True), maxima([0], [1], [1]), whole=not step)
    book.settle(None, everything=True)
    assert folder.units == []


def test_a_step_of_other_rows_makes_the_request_no_unit(book, folder):
    request = begun(rows=2)
    book.add(call(request), maxima([0], [1], [1]), whole=True)
    book.add(call(request, step=True, rows=1), maxima([0], [1]), whole=True)
    book.settle(None, everything=True)
    assert folder.units == []


def test_nothing_fired(book, folder):
    request = begun()
    book.add(call(request), None, whole=True)
    book.settle(None, everything=True)
    assert folder.units == []


def test_a_step_that_comes_too_late_is_no_unit_of_its_own(book, folder):
    request = begun()
    book.add(call(request), maxima([0], [1], [1]), whole=True)
    book.settle(None, everything=True)
    assert not book.add(call(request, step=True), maxima([0], [7], [7]), whole=True)
    book.settle(None, everything=True)
    assert [unit.absmax for unit in folder.units] == [[1]]


def test_a_request_that_is_silent_for_long_is_counted(book, folder, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(_units.time, "monotonic", lambda: now[0])
    book.add(call(begun()), maxima([0], [1], [1]), whole=True)
    now[0] += 59
    book.settle(None)
    assert not folder.units
    now[0] += 2
    book.settle(None)
    assert len(folder.units) == 1


def test_the_oldest_of_too_many_are_counted(book, folder, monkeypatch):
    monkeypatch.setattr(_units, "_OPEN", 5)
    requests = [begun() for _ in range(8)]
    for number, request in enumerate(requests):
        book.add(call(request), maxima([0], [number], [0]), whole=True)
    book.add(call(requests[0], step=True), maxima([0], [0], [0]), whole=True)
    book.settle(None)
    assert [unit.absmax for unit in folder.units] == [[1], [2], [3]]


def test_the_forward_time_of_unobserved_steps_is_handed_over_once(book):
    request = begun()
    book.add(call(request), maxima([0], [1], [1]), whole=True)
    request.forward_ns = 500
    assert book.settle(None) == 0
    request.close()
    assert book.settle(None) == 500
    assert book.settle(None) == 0


def test_calls_of_a_session_are_one_unit(book, folder):
    context = RequestContext(session="s")
    assert book.is_unit(context)
    assert not book.is_unit(context)
    assert book.is_unit(RequestContext())
    assert book.is_unit(RequestContext())
    book.add(call(begun(), context=context), maxima([0], [1], [1]), whole=True)
    book.settle(None, everything=True)
    assert folder.units == []  # its session has a unit already
    book.reset()
    assert book.is_unit(context)


def test_the_longest_unheard_session_is_forgotten(book, monkeypatch):
    monkeypatch.setattr(_units, "_REMEMBERED", 2)
    for name in ("a", "b", "a", "c"):
        book.is_unit(RequestContext(session=name))
    assert not book.is_unit(RequestContext(session="a"))
    assert book.is_unit(RequestContext(session="b"))
