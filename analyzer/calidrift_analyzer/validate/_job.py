"""The child's part of validation."""

import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule

from calidrift_agent._profile import CalibrationProfile, utc_now
from calidrift_analyzer.backend import (
    CompiledInt8,
    FixedRows,
    compile_float,
    compile_int8,
    export_graph,
    load_graph,
    planned_layers,
    require_compiler,
    rows_of,
    save_graph,
)
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.contract import Progress, Split, UserCode
from calidrift_analyzer.errors import ContractError
from calidrift_analyzer.records import (
    Candidate,
    CandidateScore,
    HeldOutCoverage,
    Latency,
    Sizes,
    ValidationReport,
    read_record,
    record_document,
)
from calidrift_analyzer.validate._gates import Evidence, gates_of
from calidrift_analyzer.validate._measure import (
    Measured,
    measure,
    require_comparable,
    uncovered_units,
)
from calidrift_analyzer.validate._samples import SampleLog, require_disjoint
from calidrift_analyzer.validate._statistics import (
    accuracy_of,
    agreement_of,
    coverage_lower_bound,
    median_ratio,
    sqnr_of,
)

__all__ = ["run"]

MODEL_FILE: Final = "model.pt2"
PROFILE_FILE: Final = "profile.json"
_ROUNDS: Final = 30
_WARM_UP: Final = 3


def run(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Measure the candidates of a request; runs in the child.

    Args:
        request: See `validate`.
        progress: Called after each step.

    Returns:
        The report as a document.
    """
    contract = read_record(ModelContract, request["contract"], source="the request")
    candidates = [
        read_record(Candidate, one, source="the request") for one in request["candidates"]
    ]
    # First of all: minutes of measuring must not end at a missing compiler.
    require_compiler()
    validation = _Validation(contract, candidates, progress, freezing=bool(request["freezing"]))
    return record_document(validation.report())


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    candidate: Candidate
    graph: GraphModule
    score: CandidateScore


@final
class _Validation:
    """One validation, step by step."""

    def __init__(
        self,
        contract: ModelContract,
        candidates: Sequence[Candidate],
        progress: Progress,
        *,
        freezing: bool,
    ) -> None:
        self._started = time.perf_counter()
        self._contract = contract
        self._candidates = candidates
        self._freezing = freezing
        self._progress = progress
        self._steps = len(candidates) + 6
        self._done = 0
        self._tell("building the FP32 model")
        self._code = UserCode(contract)
        self._inputs = self._code.example_inputs()
        self._float = self._code.model()

    def report(self) -> ValidationReport:
        """Do everything and judge."""
        float_on = self._measure_float()
        scored = [self._score(one, float_on[Split.SELECT]) for one in self._candidates]
        scored.sort(key=lambda one: _quality(one.score), reverse=True)
        winner = scored[0]
        self._tell(f"compiling {winner.candidate.id}")
        compiled = compile_int8(winner.graph, self._inputs, freezing=self._freezing)
        served = FixedRows(compiled.module, self._inputs)
        self._tell("measuring the gate split")
        evidence = self._evidence(winner, compiled, served, float_on[Split.GATE])
        self._tell("measuring the report split")
        fp32 = float_on[Split.REPORT]
        int8 = self._compare(fp32, served, Split.REPORT)
        sqnr, bulk = sqnr_of(fp32.outputs, int8.outputs)
        self._tell("measuring latency")
        latency = self._latency(compiled) if compiled.kernels.complete else None
        self._tell("done")
        rng = np.random.default_rng(self._contract.seed)
        reference_scores, scores = fp32.scores, int8.scores
        labelled = reference_scores is not None and scores is not None
        return ValidationReport(
            model=self._contract.name,
            created=utc_now(),
            candidate=winner.candidate,
            scores=tuple(one.score for one in scored),
            labelled=labelled,
            gates=gates_of(evidence, self._contract),
            accuracy=accuracy_of(
                reference_scores,
                scores,
                fp32.evaluation.segments,
                rng,
                groups=fp32.evaluation.groups,
            )
            if reference_scores is not None and scores is not None
            else None,
            agreement=agreement_of(fp32.outputs, int8.outputs),
            sqnr_db=sqnr,
            bulk_sqnr_db=bulk,
            parity_db=evidence.parity_db,
            sizes=evidence.sizes,
            kernels=compiled.kernels,
            coverage=evidence.coverage,
            latency=latency,
            seconds=time.perf_counter() - self._started,
        )

    def _tell(self, what: str) -> None:
        self._progress(what, self._done, self._steps)
        self._done += 1

    def _measure_float(self) -> dict[Split, Measured]:
        """Measure FP32 on every split, first of all: alike splits must not cost minutes."""
        self._tell("measuring FP32")
        measured = {
            split: measure(self._code, self._float, split, samples=SampleLog()) for split in Split
        }
        require_disjoint({split: one.samples for split, one in measured.items()})
        return measured

    def _compare(self, reference: Measured, model: nn.Module, split: Split) -> Measured:
        measured = measure(self._code, model, split)
        require_comparable(reference, measured, split)
        return measured

    def _score(self, candidate: Candidate, reference: Measured) -> _Scored:
        self._tell(f"scoring {candidate.id}")
        began = time.perf_counter()
        graph = load_graph(_intact(candidate, MODEL_FILE))
        measured = self._compare(reference, graph, Split.SELECT)
        sqnr, bulk = sqnr_of(reference.outputs, measured.outputs)
        metric = measured.evaluation.metric
        if metric is None:
            metric = agreement_of(reference.outputs, measured.outputs)
        seconds = time.perf_counter() - began
        return _Scored(candidate, graph, CandidateScore(candidate.id, metric, sqnr, bulk, seconds))

    def _evidence(
        self, winner: _Scored, compiled: CompiledInt8, served: nn.Module, fp32: Measured
    ) -> Evidence:
        int8 = self._compare(fp32, served, Split.GATE)
        simulated = self._compare(fp32, winner.graph, Split.GATE)
        return Evidence(
            fp32_accuracy=fp32.evaluation.metric,
            int8_accuracy=int8.evaluation.metric,
            agreement=agreement_of(fp32.outputs, int8.outputs),
            sqnr_db=sqnr_of(fp32.outputs, int8.outputs)[0],
            simulated_sqnr_db=sqnr_of(fp32.outputs, simulated.outputs)[0],
            parity_db=sqnr_of(simulated.outputs, int8.outputs)[0],
            identical=bool(np.array_equal(simulated.outputs, int8.outputs)),
            sizes=self._sizes(winner),
            kernels=compiled.kernels,
            coverage=self._coverage(winner),
        )

    def _sizes(self, winner: _Scored) -> Sizes:
        layers = {layer.weight: layer for layer in planned_layers(winner.graph)}.values()
        with tempfile.TemporaryDirectory(prefix="calidrift-") as folder:
            path = Path(folder) / MODEL_FILE
            save_graph(export_graph(self._float, self._inputs), self._inputs, path)
            fp32_file = path.stat().st_size
        return Sizes(
            int8_bytes=sum(layer.int8_bytes for layer in layers),
            fp32_bytes=sum(layer.fp32_bytes for layer in layers),
            int8_file_bytes=(winner.candidate.path / MODEL_FILE).stat().st_size,
            fp32_file_bytes=fp32_file,
        )

    def _coverage(self, winner: _Scored) -> HeldOutCoverage:
        profile = CalibrationProfile.load(_intact(winner.candidate, PROFILE_FILE))
        splits = (Split.GATE, Split.REPORT)
        rng = np.random.default_rng(self._contract.seed)
        held_out = uncovered_units(self._code, winner.graph, profile, splits, rng)
        outside = np.any(np.stack(list(held_out.exceeded.values())), axis=0)
        units, covered = int(outside.size), int((~outside).sum())
        counts = {name: int(one.sum()) for name, one in held_out.exceeded.items()}
        worst = max(counts, key=lambda name: counts[name])
        return HeldOutCoverage(
            units=units,
            covered=covered,
            ratio=covered / units,
            lower=coverage_lower_bound(covered, units),
            worst_point=worst if counts[worst] else "",
            rows=held_out.rows,
        )

    def _latency(self, compiled: CompiledInt8) -> Latency:
        baseline = compile_float(export_graph(self._float, self._inputs), self._inputs)
        fp32, int8 = [], []
        for turn in range(_WARM_UP + _ROUNDS):
            pair = (_time(baseline, self._inputs), _time(compiled.module, self._inputs))
            if turn >= _WARM_UP:
                fp32.append(pair[0])
                int8.append(pair[1])
        rng = np.random.default_rng(self._contract.seed)
        return Latency(
            rows=rows_of(self._inputs),
            rounds=_ROUNDS,
            fp32_ms=float(np.median(fp32)) * 1e3,
            int8_ms=float(np.median(int8)) * 1e3,
            ratio=median_ratio(np.asarray(int8), np.asarray(fp32), rng),
        )


def _time(model: nn.Module, inputs: Sequence[Any]) -> float:
    began = time.perf_counter()
    with torch.no_grad():
        model(*inputs)
    return time.perf_counter() - began


def _quality(score: CandidateScore) -> tuple[float, float]:
    lowest = float("-inf")
    metric = lowest if score.metric is None else score.metric
    return metric, lowest if score.sqnr_db is None else score.sqnr_db


def _intact(candidate: Candidate, name: str) -> Path:
    """Give a file of a candidate, unchanged since recalibration wrote it."""
    path = candidate.path / name
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ContractError(
            f"{path} of the candidate {candidate.id} cannot be read ({error.strerror}); "
            "recalibrate again"
        ) from error
    if found != candidate.files.get(name):
        raise ContractError(
            f"{path} of the candidate {candidate.id} has changed since it was written; "
            "recalibrate again"
        )
    return path
