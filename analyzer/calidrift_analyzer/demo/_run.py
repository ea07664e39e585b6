"""The demo: train, quantize, serve, drift, detect, repair, serve again."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol, final

import torch
from safetensors.torch import save_file
from torch import nn

from calidrift_agent import CalibrationProfile
from calidrift_agent._vocabulary import RequestColumn
from calidrift_analyzer.backend import load_graph, require_compiler
from calidrift_analyzer.config import load_config
from calidrift_analyzer.contract import Progress
from calidrift_analyzer.cycle import (
    LearnOptions,
    collect_and_assess,
    learn_reference,
    run_cycle,
)
from calidrift_analyzer.demo._contract import DigitsContract
from calidrift_analyzer.demo._data import Condition
from calidrift_analyzer.demo._findings import (
    Findings,
    Relearned,
    Repaired,
    Scores,
    Shift,
    result_of,
)
from calidrift_analyzer.demo._measure import Score, maxima_by_condition, range_ends, score
from calidrift_analyzer.demo._plot import plot_maxima
from calidrift_analyzer.demo._result import DemoOptions, DemoResult
from calidrift_analyzer.demo._service import Deployed, Service, deploy, promoted, stale
from calidrift_analyzer.demo._traffic import Traffic
from calidrift_analyzer.demo._training import TrainOptions, train
from calidrift_analyzer.demo._workdir import MODEL, Workdir
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.records import ModelAssessment, Source, record_document
from calidrift_analyzer.store import Store

__all__ = ["Narrator", "run_demo"]

_LOOK: Final = 50
"""Requests per window, and so between two looks of the analyzer, until the alarm."""
_BURN_IN_LOOK: Final = 200
"""The same after the promotion."""
_LATER_LOOK: Final = 1_000
"""The same when there is no hurry any more."""
_CALM: Final = (Condition.LOW_LIGHT,)
_SHIFTED: Final = tuple(Condition)


class Narrator(Protocol):
    """Is told how far the demo has come."""

    def step(self, what: str) -> AbstractContextManager[Progress]:
        """Begin a step; it ends with the context."""
        ...


def run_demo(options: DemoOptions, narrator: Narrator | None = None) -> DemoResult:
    """Run the whole loop on real images; every figure of the result is measured in this run.

    A residual network is trained to withstand four conditions, quantized with a calibration set
    that has only one of them, and served (compiled INT8 kernels) under `watch`. Held-out traffic
    of the calibrated kind comes first, then all four. The analyzer looks after every window; after
    the alarm one cycle selects, recalibrates, validates and promotes. The promoted version is
    served from the registry until random units of its traffic are its reference, and then watched
    against that. The stages, the store and the child processes are those that the commands use,
    and the folder works with all of them afterwards.

    Args:
        options: Seed, folder, length of the traffic.
        narrator: Told of every step.

    Returns:
        The result; the same document is in the folder as `result.json`.

    Raises:
        ConfigurationError: The folder cannot be used.
        ToolchainError: INT8 kernels cannot be compiled here.
        RefusedError: There was no alarm, or a gate refused every candidate.

    Cost: under 4 minutes on 2 cores.
    """
    require_compiler()
    threads = torch.get_num_threads()
    # One thread: the same result on any number of cores, the other core for the agent's shadow
    # passes, and one compilation (compiled code is bound to the number of threads).
    torch.set_num_threads(1)
    try:
        return _Run(options, narrator or _Silent()).result()
    finally:
        torch.set_num_threads(threads)


@final
class _Silent:
    """A narrator for callers that need none."""

    @contextmanager
    def step(self, what: str) -> Iterator[Progress]:
        yield lambda what, done, total: None


@final
class _Run:
    """One run of the demo, step by step."""

    def __init__(self, options: DemoOptions, narrator: Narrator) -> None:
        self._options = options
        self._narrator = narrator
        self._began = time.perf_counter()
        self._seconds: dict[str, float] = {}
        self._workdir = Workdir.prepare(options.workdir, options.seed)
        # Settings of the machine's environment are for its own services, not for the demo's.
        self._config = load_config(self._workdir.config, variables={})
        self._contract = DigitsContract(options.seed)
        self._inputs = self._contract.example_inputs()
        self._traffic = Traffic(options.seed)

    def result(self) -> DemoResult:
        """Take every step."""
        network, fp32 = self._train()
        stale_version, stale_score = self._quantize(network)
        shift = self._serve_stale(stale_version)
        with self._step("select, recalibrate, validate, promote") as progress:
            repaired = Repaired.of(run_cycle(self._config, MODEL, progress=progress))
        current, recalibrated, relearned = self._serve_promoted()
        with self._step("measure the sketch-only candidate"):
            sketch_only = self._sketch_only(repaired)
        with self._step("plot"):
            plots = self._plot(stale_version, current)
        scores = Scores(
            fp32=fp32, stale=stale_score, recalibrated=recalibrated, sketch_only=sketch_only
        )
        found = Findings(
            scores=scores,
            shift=shift,
            repaired=repaired,
            kernels_found=current.kernels.found,
            relearned=relearned,
            plots=plots,
            step_seconds=self._seconds,
            wall_seconds=time.perf_counter() - self._began,
        )
        result = result_of(found, self._options, self._workdir)
        self._workdir.write_result(record_document(result))
        return result

    @contextmanager
    def _step(self, what: str) -> Iterator[Progress]:
        began = time.perf_counter()
        with self._narrator.step(what) as progress:
            yield progress
        self._seconds[what] = time.perf_counter() - began

    def _train(self) -> tuple[nn.Module, Score]:
        with self._step("train the FP32 network") as progress:
            network = train(
                TrainOptions(seed=self._options.seed, epochs=self._options.epochs),
                lambda done, total: progress("training", done, total),
            )
            save_file(network.state_dict(), self._workdir.weights)
            return network, score(network, self._contract)

    def _quantize(self, network: nn.Module) -> tuple[Deployed, Score]:
        with self._step("quantize with low-light pictures, compile INT8"):
            graph, profile = stale(network, self._contract)
            deployed = deploy(graph, profile, self._inputs)
            return deployed, score(deployed.any_rows, self._contract)

    def _serve_stale(self, deployed: Deployed) -> Shift:
        options = self._options
        with Service.running(deployed, self._workdir, self._traffic, options) as service:
            with self._step("serve low-light requests") as progress:
                calm = self._watch(service, options.calm_requests, _CALM, progress)[-1]
            with self._step("serve requests of all four conditions") as progress:
                looks = self._watch(service, options.shifted_requests, _SHIFTED, progress)
        alarmed = next((look for look in looks if look.alarm is not None), None)
        if alarmed is None:
            raise RefusedError(
                f"{options.shifted_requests} requests of all four conditions raised no alarm, so "
                "there is nothing to repair; serve more of them"
            )
        with Store.open(self._config.database) as store:
            since = store.totals(MODEL, deployed.profile.digest, since_ns=calm.last_ns)
            all_of_it = store.totals(MODEL, deployed.profile.digest).requests
        own, forward = (
            int(all_of_it[column])
            for column in (RequestColumn.OVERHEAD_NS, RequestColumn.FORWARD_NS)
        )
        return Shift(
            calm=calm,
            alarmed=alarmed,
            coverage=since.units_covered / since.units,
            overhead_ratio=own / forward,
        )

    def _watch(
        self,
        service: Service,
        count: int,
        conditions: Sequence[Condition],
        progress: Progress,
        look: int = _LOOK,
    ) -> list[ModelAssessment]:
        """Serve in windows; the analyzer collects and assesses after each one."""
        looks: list[ModelAssessment] = []
        served = 0
        with Store.open(self._config.database) as store:
            while served < count:
                alarmed = bool(looks) and looks[-1].alarm is not None
                size = min(_LATER_LOOK if alarmed else look, count - served)
                service.serve(size, conditions)
                served += size
                contract = self._config.model(MODEL)
                looks.append(collect_and_assess(store, self._config, contract).assessment)
                progress("serving", served, count)
        return looks

    def _serve_promoted(self) -> tuple[Deployed, Score, Relearned]:
        """Serve the promoted version until it has a reference of its own, then against that."""
        options = self._options
        with self._step("serve the promoted version") as progress:
            deployed = promoted(self._workdir, self._inputs)
            recalibrated = score(deployed.any_rows, self._contract)
            with Service.running(deployed, self._workdir, self._traffic, options) as service:
                count = options.repaired_requests
                burn_in = self._watch(service, count, _SHIFTED, progress, _BURN_IN_LOOK)[-1]
        with self._step("learn its reference, serve on") as progress:
            # Whatever alarm was raised is told: of this traffic it is known that it is to stay.
            learning = LearnOptions(units=options.reference_units, force=True)
            reference = learn_reference(self._config, MODEL, learning)
            # The version has the same model, byte for byte, so nothing is compiled again.
            learned = replace(deployed, profile=CalibrationProfile.load(reference.path))
            with Service.running(learned, self._workdir, self._traffic, options) as service:
                count = options.watched_requests
                after = self._watch(service, count, _SHIFTED, progress, _BURN_IN_LOOK)[-1]
        relearned = Relearned(burn_in=burn_in, reference=reference, after=after)
        return learned, recalibrated, relearned

    def _sketch_only(self, repaired: Repaired) -> Score:
        """Measure the best candidate whose ranges come from production sketches alone."""
        by_id = {one.id: one for one in repaired.outcome.candidates if one.source is Source.SKETCH}
        best = next(by_id[one.id] for one in repaired.report.scores if one.id in by_id)
        profile = CalibrationProfile.load(best.path / "profile.json")
        version = deploy(load_graph(best.path / "model.pt2"), profile, self._inputs)
        return score(version.any_rows, self._contract)

    def _plot(self, before: Deployed, after: Deployed) -> tuple[Path, Path]:
        points = tuple(before.profile.points)
        return plot_maxima(
            self._workdir.plot,
            points,
            maxima_by_condition(before.graph, points, self._options.seed),
            {
                "INT8 range, calibrated on low light": range_ends(before.profile, points),
                "INT8 range, recalibrated": range_ends(after.profile, points),
            },
        )
