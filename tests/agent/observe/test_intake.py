import threading

import pytest

from calidrift_agent._observe import Intake, ObservedCall, RequestContext
from calidrift_agent._observe import _intake as module
from calidrift_agent._vocabulary import DropReason


class Desk:
    def __init__(self, relieves=None):
        self.crowded = []
        self.relieves = relieves

    def arrived(self, *, crowded):
        self.crowded.append(crowded)

    def relieve(self):
        if self.relieves is None:
            return False
        self.relieves()
        return True


def call(size=0):
    return ObservedCall(rows=1, unit=0, context=RequestContext(), time_ns=0, size=size)


def test_calls_come_out_in_order():
    intake = Intake(Desk(), pytest.fail)
    calls = [call(), call()]
    for one in calls:
        intake.put(one)
    assert len(intake) == 2
    assert [intake.take(), intake.take(), intake.take()] == [*calls, None]


def test_a_full_queue_drops():
    dropped = []
    intake = Intake(Desk(), dropped.append, limit=2)
    for _ in range(2):
        assert intake.has_room()
        intake.put(call())
    assert not intake.has_room()
    assert dropped == [DropReason.QUEUE_FULL]
    intake.take()
    assert intake.has_room()


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "PENDING_BYTES", 100)
    intake = Intake(Desk(), lambda _: None)
    intake.put(call(size=99))
    assert intake.has_room()
    intake.put(call(size=1))
    assert not intake.has_room()


def test_the_drain_is_woken_when_a_quarter_waits(monkeypatch):
    monkeypatch.setattr(module, "PENDING_BYTES", 400)
    desk = Desk()
    intake = Intake(desk, pytest.fail, limit=8)
    for size in (0, 0, 0):
        intake.put(call(size))
    intake.reset()
    intake.put(call(99))
    intake.take()
    intake.put(call(100))
    assert desk.crowded == [False, True, True, False, True]


def test_a_desk_that_must_not_drop_is_asked_to_relieve():
    intake = Intake(Desk(lambda: intake.take()), pytest.fail, limit=1)
    for _ in range(3):
        assert intake.has_room()
        intake.put(call())


def test_no_call_is_lost_between_threads():
    intake, taken = Intake(Desk(), pytest.fail, limit=10**6), []

    def put():
        for _ in range(500):
            intake.put(call(size=3))

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken.append(intake.take())
    for thread in threads:
        thread.join()
    while (one := intake.take()) is not None:
        taken.append(one)
    assert sum(one is not None for one in taken) == 4000
    assert intake._bytes == 0
