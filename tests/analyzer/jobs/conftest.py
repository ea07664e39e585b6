"""A store with one model, and stages that do their work in an instant."""

import dataclasses
from pathlib import Path
from types import MappingProxyType

import pytest

from calidrift_analyzer.config import AnalyzerConfig, ModelContract, ServiceConfig
from calidrift_analyzer.jobs import DirectDatabase, StageResult, StageWork, Worker
from calidrift_analyzer.records import JobKind, JobState
from calidrift_analyzer.store import Store

WAY = {
    JobState.SELECTING: JobState.RECALIBRATING,
    JobState.RECALIBRATING: JobState.VALIDATING,
    JobState.VALIDATING: JobState.AWAITING_APPROVAL,
    JobState.AWAITING_APPROVAL: JobState.PROMOTED,
}


class Stages:
    """Stand-ins: they note what they were given, and go the straight way."""

    def __init__(self) -> None:
        self.seen: list[StageWork] = []
        self.fails: dict[JobState, BaseException] = {}

    @property
    def states(self) -> list[str]:
        return [work.job.state.value for work in self.seen]

    def run(self, work: StageWork) -> StageResult:
        state = work.job.state
        self.seen.append(work)
        work.progress(f"{state} here", 1, 2)
        if state in self.fails:
            raise self.fails.pop(state)
        following = WAY[state]
        if work.job.kind is JobKind.REVALIDATION:
            following = JobState.CONFIRMED
        return StageResult(
            state=following, sentence=f"{state} is done", document={"after": state.value}
        )


def configured(root: Path, *names: str, **told) -> AnalyzerConfig:
    models = {
        name: ModelContract(
            name=name,
            root=root,
            factory="user:factory",
            example_inputs="user:example_inputs",
            calibration="user:calibration",
            evaluate="user:evaluate",
            registry=root / "registry",
        )
        for name in names or ("net",)
    }
    return AnalyzerConfig(
        database=root / "calidrift.duckdb",
        state_dirs=(),
        models=MappingProxyType(models),
        service=ServiceConfig(**{"cool_down_seconds": 0.0, **told}),
    )


class Bench:
    """One worker on a store, driven by hand."""

    def __init__(self, root: Path, store: Store, **told) -> None:
        self.config = configured(root, "net", "other", **told)
        self.store = store
        self.stages = Stages()
        self.ended = []
        self.worker = self.fresh_worker()

    def fresh_worker(self) -> Worker:
        """A worker as the next process would have it."""
        return Worker(
            DirectDatabase(self.store), self.config, self.stages, on_end=self.ended.append
        )

    def told(self, **changes) -> None:
        service = dataclasses.replace(self.config.service, **changes)
        self.config = dataclasses.replace(self.config, service=service)
        self.worker = self.fresh_worker()

    @property
    def contract(self) -> ModelContract:
        return self.config.models["net"]

    def state(self, job: int = 1) -> str:
        return self.store.jobs.find(job).state.value


@pytest.fixture
def bench(tmp_path):
    with Store.open(tmp_path / "calidrift.duckdb") as store:
        yield Bench(tmp_path, store)
