"""A short demo in this process: few epochs, little traffic, but every stage is the real one."""

import json
from contextlib import contextmanager
from functools import partial

import pytest
import torch

from calidrift_analyzer.cycle import CycleOptions, CycleOutcome, run_cycle
from calidrift_analyzer.demo import DemoOptions, run_demo
from calidrift_analyzer.demo import _run as steps
from calidrift_analyzer.demo._findings import Repaired
from calidrift_analyzer.demo._network import DigitNetwork
from calidrift_analyzer.errors import ConfigurationError, RefusedError
from calidrift_analyzer.ranges import Estimator
from calidrift_analyzer.records import record_document


class Listener:
    """Notes the steps in their order, and what was told inside each."""

    def __init__(self):
        self.told = {}

    @contextmanager
    def step(self, what):
        inside = self.told.setdefault(what, [])
        yield lambda what, done, total: inside.append((what, done, total))


@pytest.mark.slow
def test_a_short_demo_takes_every_step(tmp_path, monkeypatch):
    # One estimator for each source; `tests/system/test_demo.py` runs them all.
    one_estimator = CycleOptions(estimators=(Estimator.MSE,))
    monkeypatch.setattr(steps, "run_cycle", partial(run_cycle, options=one_estimator))
    listener = Listener()
    threads = torch.get_num_threads()
    options = DemoOptions(
        workdir=tmp_path / "demo",
        seed=3,
        epochs=12,
        calm_requests=200,
        shifted_requests=1_000,
        repaired_requests=200,
        watched_requests=60,
        reference_units=64,
        sample_rate=0.5,
    )

    result = run_demo(options, listener)

    assert torch.get_num_threads() == threads
    assert list(listener.told) == list(result.step_seconds)
    serving = listener.told["serve requests of all four conditions"]
    assert serving[0] == ("serving", 50, 1_000)
    assert serving[-1] == ("serving", 1_000, 1_000)
    assert len(serving) < 20, "after the alarm the looks are less frequent"
    assert result.stale_int8_accuracy < result.recalibrated_int8_accuracy
    assert result.request_coverage_before < result.request_coverage_after
    assert not result.alarm_before_shift
    assert 64 <= result.reference_units <= 130
    assert result.verdict_after != "learning"
    assert 0 < result.observed_until_alarm <= 50
    assert sum(result.selected_by.values()) == result.selected_samples > 0
    kept = json.loads((tmp_path / "demo" / "result.json").read_text(encoding="utf-8"))
    assert kept == record_document(result)


@pytest.mark.slow
def test_without_an_alarm_there_is_nothing_to_repair(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "train", lambda *_: DigitNetwork().eval())
    options = DemoOptions(
        workdir=tmp_path / "demo", calm_requests=5, shifted_requests=5, sample_rate=0.0
    )

    with pytest.raises(RefusedError, match="5 requests of all four conditions raised no alarm"):
        run_demo(options)


def test_a_refused_repair_ends_the_demo_with_the_reason():
    class Nothing:
        report = None
        version = None
        sentence = "candidate x was refused"

    outcome = Nothing()
    assert not isinstance(outcome, CycleOutcome)
    with pytest.raises(RefusedError, match="not repaired: candidate x was refused"):
        Repaired.of(outcome)


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="the seed is -1"):
        DemoOptions(workdir=tmp_path, seed=-1)
