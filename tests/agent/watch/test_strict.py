"""CALIDRIFT_STRICT=1: failures of the agent reach the caller, once, and nothing is left behind."""

import pytest
import torch

from calidrift_agent._observe import Instead
from calidrift_agent._state import scan
from calidrift_agent._taps import Folder, Ledger, Recorder
from calidrift_agent._vocabulary import RequestColumn, Stage
from calidrift_agent._watch._storage import Storage
from calidrift_agent.errors import CalidriftError, StrictModeError


def broken(*_, **__):
    raise ZeroDivisionError("planted")


@pytest.fixture
def strict(monkeypatch):
    monkeypatch.setenv("CALIDRIFT_STRICT", "1")


@pytest.mark.usefixtures("python_taps")
@pytest.mark.parametrize(
    ("owner", "name", "stage"),
    [(Instead, "_begin", "sample"), (Recorder, "_keep", "tap"), (Recorder, "finish", "sample")],
)
def test_a_failure_in_a_request(strict, net, x, watch_all, monkeypatch, owner, name, stage):
    expected = net(x)
    watch = watch_all(net)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        wanted = rf"^{stage} failed .*planted.*unset it"
        with pytest.raises(StrictModeError, match=wanted) as caught:
            net(x)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert isinstance(caught.value, CalidriftError)
    assert torch.equal(net(x), expected)
    watch._active.engine.tick()
    errors = watch.snapshot()[1].requests[RequestColumn.ERROR_FIRST :][: len(Stage)]
    assert errors.sum() == 1


@pytest.mark.parametrize("how", ["request", "flush", "close"])
def test_a_failure_beside_requests_comes_with_the_next(
    strict, net, x, watch_all, monkeypatch, how, tmp_path
):
    watch = watch_all(net, state_dir=tmp_path)
    net(x)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "fold_ranges", broken)
        watch._active.engine.tick()  # as the thread does: nothing is raised in here
    ask = {"request": lambda: net(x), "flush": watch.flush, "close": watch.close}[how]
    with pytest.raises(StrictModeError, match=r"^drain failed"):
        ask()
    net(x)  # once is enough
    watch.close()
    assert "forward" not in net.__dict__
    (reader,) = scan(tmp_path)
    with reader:
        assert not reader.alive


def test_the_first_of_several_is_raised(strict, net, x, watch_all, monkeypatch, tmp_path):
    watch = watch_all(net, state_dir=tmp_path)
    net(x)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "fold_ranges", broken)
        patch.setattr(Storage, "write_open", broken)
        watch._active.engine.tick()
    with pytest.raises(StrictModeError, match=r"^drain failed"):
        watch.flush()
    watch.flush()


def test_without_it_nothing_is_raised(net, x, watch_all, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_STRICT", "0")
    watch = watch_all(net)
    monkeypatch.setattr(Recorder, "_keep", broken)
    monkeypatch.setattr(Folder, "fold_ranges", broken)
    net(x)
    watch.flush()
    watch.close()


def test_an_error_of_the_model_stays_its_own(strict, net, watch_all):
    watch_all(net)
    with pytest.raises(RuntimeError) as caught:
        net(torch.ones(1, 7, 5, 5))
    assert not isinstance(caught.value, StrictModeError)


def test_what_is_raised_is_not_counted_again():
    ledger = Ledger("net", lambda: None, strict=True)
    with pytest.raises(StrictModeError) as caught:
        ledger.failed(Stage.TAP, ValueError("one"))
    with pytest.raises(StrictModeError) as again:
        ledger.failed(Stage.SAMPLE, caught.value)
    assert again.value is caught.value
    assert ledger.take()[0].sum() == 1
    ledger.failed(Stage.DRAIN, ValueError("two"))
    ledger.reset()  # a forked child raises nothing of its parent
    ledger.raise_pending()
