import logging
import threading

import pytest

from calidrift_agent._taps import CONSECUTIVE_LIMIT, Ledger
from calidrift_agent._vocabulary import DropReason, Stage


def test_errors_and_drops_are_counted_by_kind():
    ledger = Ledger("model", lambda: None)
    ledger.failed(Stage.TAP, ValueError("a"))
    ledger.failed(Stage.STATE, OSError("b"))
    ledger.failed(Stage.TAP, ValueError("c"))
    ledger.dropped(DropReason.QUEUE_FULL)
    ledger.dropped(DropReason.DISK_FULL, 3)
    errors, drops = ledger.take()
    assert dict(zip(Stage, errors.tolist(), strict=True))[Stage.TAP] == 2
    assert errors.sum() == 3
    assert dict(zip(DropReason, drops.tolist(), strict=True))[DropReason.DISK_FULL] == 3
    assert not any(part.any() for part in ledger.take())


def test_each_kind_is_logged_once(caplog):
    ledger = Ledger("model", lambda: None)
    with caplog.at_level(logging.WARNING, "calidrift_agent"):
        for _ in range(5):
            ledger.failed(Stage.TAP, ValueError("first"))
        ledger.failed(Stage.TAP, TypeError("second"))
        ledger.failed(Stage.DRAIN, ValueError("third"))
    assert len(caplog.records) == 3
    assert "requests are not affected" in caplog.text


def test_too_many_in_a_row_call_the_last_straw_once():
    spent = []
    ledger = Ledger("model", lambda: spent.append(1))
    for _ in range(CONSECUTIVE_LIMIT - 1):
        ledger.failed(Stage.TAP, ValueError())
    ledger.succeeded()
    for _ in range(CONSECUTIVE_LIMIT - 1):
        ledger.failed(Stage.TAP, ValueError())
    assert not spent
    assert not ledger.exhausted
    for _ in range(5):
        ledger.failed(Stage.TAP, ValueError())
    assert spent == [1]
    assert ledger.exhausted


def test_neither_a_broken_logger_nor_a_broken_callback_is_raised(monkeypatch):
    monkeypatch.setattr(logging.Logger, "warning", lambda *_: 1 / 0)
    ledger = Ledger("model", lambda: 1 / 0)
    for _ in range(CONSECUTIVE_LIMIT):
        ledger.failed(Stage.TAP, ValueError())
    assert ledger.exhausted


@pytest.mark.parametrize("threads", [8])
def test_no_count_is_lost_between_threads(threads):
    ledger = Ledger("model", lambda: None)

    def work():
        for _ in range(500):
            ledger.failed(Stage.SAMPLE, ValueError())
            ledger.dropped(DropReason.QUEUE_FULL)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    taken = [0, 0]
    while any(worker.is_alive() for worker in workers):
        errors, drops = ledger.take()
        taken = [taken[0] + errors.sum(), taken[1] + drops.sum()]
    for worker in workers:
        worker.join()
    errors, drops = ledger.take()
    assert [taken[0] + errors.sum(), taken[1] + drops.sum()] == [500 * threads] * 2


def test_reset_forgets_everything():
    ledger = Ledger("model", lambda: None)
    for _ in range(CONSECUTIVE_LIMIT):
        ledger.failed(Stage.TAP, ValueError())
    ledger.reset()
    assert not ledger.exhausted
    assert not ledger.take()[0].any()
