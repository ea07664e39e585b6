"""One job with the real stages: from windows of a served model to a version that serves."""

import dataclasses
import sys

import pytest
import torch

from calidrift_agent import CaptureOptions, WatchOptions, calibrate, watch
from calidrift_agent._registry import open_version
from calidrift_analyzer.collect import collect
from calidrift_analyzer.config import AnalyzerConfig, ServiceConfig
from calidrift_analyzer.jobs import (
    DirectDatabase,
    Order,
    RealStages,
    Worker,
    approve,
    job_folder,
    order_job,
)
from calidrift_analyzer.ranges import Estimator
from calidrift_analyzer.records import JobKind, Trigger
from calidrift_analyzer.store import Store


@pytest.fixture
def served(tiny_contract, tmp_path, monkeypatch):
    """A model that was calibrated by night and serves by day, with what its agent wrote."""
    monkeypatch.syspath_prepend(str(tiny_contract.root))
    import tiny_user

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = tiny_user.factory()
    profile = calibrate(model, tiny_user.by_night())
    rows = tiny_user.data(80, 9)[0]
    with (
        torch.no_grad(),
        watch(
            model,
            name="tiny",
            profile=profile,
            state_dir=tmp_path / "state",
            sample_rate=1.0,
            capture=CaptureOptions(seed=0),
            options=WatchOptions(budget=None, window_seconds=3600.0, seed=0),
        ) as watching,
    ):
        for row in rows:
            model(row[None])
        watching.flush()
    torch.set_num_threads(threads)
    contract = dataclasses.replace(tiny_contract, registry=tmp_path / "registry", select_budget=16)
    yield AnalyzerConfig(
        database=tmp_path / "calidrift.duckdb",
        state_dirs=(tmp_path / "state",),
        models={"tiny": contract},
        service=ServiceConfig(),
    )
    sys.modules.pop("tiny_user", None)


def ask(store, config, kind):
    order = Order(model="tiny", trigger=Trigger.API, cause="", actor="ann", kind=kind)
    return order_job(store, order, config.service).job


@pytest.mark.slow
def test_a_model_is_repaired_and_what_serves_is_measured_again(served):
    config, contract = served, served.models["tiny"]
    told = []
    with Store.open(config.database) as store:
        collect(config.state_dirs, store)
        stages = RealStages(estimators=(Estimator.ABSMAX,))
        worker = Worker(DirectDatabase(store), config, stages)
        job = ask(store, config, JobKind.RECALIBRATION)

        worker.run_until_idle()

        found = store.jobs.find(job)
        assert found.state.value == "awaiting_approval", found.sentence
        told = [step.sentence for step in store.jobs.steps(job)]
        assert any("captured requests were selected" in sentence for sentence in told), told
        assert len(store.outcomes.validations("tiny")) == 1
        assert store.outcomes.versions("tiny") == ()

        approve(store, contract, job, actor="eve")
        worker.run_until_idle()
        [move] = store.outcomes.versions("tiny")
        version = open_version(contract.registry, "tiny")
        assert (move.version, store.jobs.find(job).state.value) == (version.id, "promoted")
        assert store.profile(move.profile) is not None
        assert not job_folder(contract, job).exists()
