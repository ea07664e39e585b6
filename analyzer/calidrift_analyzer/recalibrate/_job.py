"""The child's part of recalibration: user code, torchao, and the files of the candidates."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from calidrift_agent._calibrate import CalibrateOptions, calibrate
from calidrift_agent._points import QuantizedGraph, fingerprint_of
from calidrift_agent._profile import (
    CalibrationProfile,
    Fingerprint,
    ObservedBound,
    PointProfile,
    ReferenceOrigin,
    utc_now,
)
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import Instrument, ReferenceSource
from calidrift_analyzer.backend import PreparedModel, planned_layers, save_graph
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.contract import Progress, UserCode
from calidrift_analyzer.errors import CalidriftError, ContractError
from calidrift_analyzer.ranges import Estimator, predict
from calidrift_analyzer.recalibrate._samples import sample_batches
from calidrift_analyzer.records import Candidate, Production, Source, read_record, record_document

__all__ = ["run"]

MODEL_FILE: Final = "model.pt2"
PROFILE_FILE: Final = "profile.json"


def run(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Write the candidates that a request asks for; runs in the child.

    Args:
        request: See `recalibrate`.
        progress: Called after each step.

    Returns:
        `{"candidates": [...]}`.
    """
    contract = read_record(ModelContract, request["contract"], source="the request")
    estimators = [Estimator(word) for word in request["estimators"]]
    production = _production(request["production"])
    sampled = bool(request["calibration"])
    total = 2 + len(estimators) * (sampled + (production is not None))
    progress("exporting the model", 0, total)
    code = UserCode(contract)
    inputs = code.example_inputs()
    prepared = PreparedModel(code.model(), inputs)
    references: dict[Source, _Reference] = {}
    if sampled:
        progress("measuring the calibration set", 1, total)
        references[Source.SAMPLES] = _measure(prepared, code, contract, request["samples"])
    if production is not None:
        references[Source.SKETCH] = _Reference.of_production(production)
    folder = Path(request["directory"])
    folder.mkdir(parents=True, exist_ok=True)
    candidates: list[Candidate] = []
    for source, reference in references.items():
        for estimator in estimators:
            progress(f"estimating {source}-{estimator}", 2 + len(candidates), total)
            graph = prepared.convert(prepared.estimate(reference.sketches, estimator))
            profile = reference.profile_of(graph, contract)
            candidates.append(_write(folder, contract, (source, estimator), graph, profile, inputs))
    progress("done", total, total)
    return {"candidates": [record_document(candidate) for candidate in candidates]}


@final
class _Reference:
    """Sketches and observed bounds that belong together: one set of reference units."""

    def __init__(
        self,
        sketches: Mapping[str, MagnitudeSketch],
        bounds: Mapping[str, ObservedBound],
        units: int,
        data: str,
    ) -> None:
        self.sketches = sketches
        self._bounds = bounds
        self._units = units
        self._data = data

    @classmethod
    def of_production(cls, production: Production) -> "_Reference":
        """Take production itself as the reference: its largest value is the observed bound."""
        bounds = {
            name: ObservedBound(
                value=sketch.absmax, rank=1, units=production.units, top=(sketch.absmax,)
            )
            for name, sketch in production.sketches.items()
            if sketch.count and production.units
        }
        text = json.dumps([[n, s.to_mapping()] for n, s in sorted(production.sketches.items())])
        digest = hashlib.sha256(text.encode()).hexdigest()
        return cls(production.sketches, bounds, production.units, digest)

    @classmethod
    def of_profile(cls, profile: CalibrationProfile, data: str) -> "_Reference":
        """Take what `calibrate` measured."""
        points = profile.points.values()
        return cls(
            {point.name: point.sketch for point in points if point.sketch is not None},
            {p.name: p.observed_bound for p in points if p.observed_bound is not None},
            profile.units,
            data,
        )

    def profile_of(self, graph: GraphModule, contract: ModelContract) -> CalibrationProfile:
        """The profile of a graph: its own ranges with the observations of this reference.

        They are provisional: samples were selected, sums over production are no units, and even a
        calibration set alone is of the time before the drift that is being repaired.
        """
        points = {
            quantizer.name: PointProfile(
                name=quantizer.name,
                clip_bound=quantizer.bound,
                observed_bound=self._bounds.get(quantizer.name),
                sketch=self.sketches[quantizer.name],
                aliases=quantizer.aliases,
            )
            for quantizer in QuantizedGraph(graph).quantizers
        }
        return CalibrationProfile(
            points=points,
            units=self._units,
            instrument=Instrument.RANGE,
            fingerprint=_fingerprint(graph, contract, self._data),
            created=utc_now(),
            reference=ReferenceOrigin(source=ReferenceSource.PROVISIONAL),
        )


def _fingerprint(graph: GraphModule, contract: ModelContract, data: str) -> Fingerprint:
    return fingerprint_of(graph, data=data, preprocessing=contract.preprocessing or "")


def _production(content: Mapping[str, Any] | None) -> Production | None:
    if content is None:
        return None
    sketches = {
        name: MagnitudeSketch.from_mapping(stored) for name, stored in content["sketches"].items()
    }
    return Production(sketches, int(content["units"]))


def _measure(
    prepared: PreparedModel, code: UserCode, contract: ModelContract, samples: list[str]
) -> _Reference:
    """Run calibration set and samples through the range instrument."""
    seen = hashlib.sha256()

    def batches() -> Iterator[Any]:
        for batch in code.calibration():
            yield _noted(batch, seen)
        for batch in sample_batches([Path(one) for one in samples], prepared.float_graph):
            yield _noted(batch, seen)

    try:
        profile = calibrate(prepared.convert(), batches(), options=CalibrateOptions())
    except CalidriftError:
        raise
    except Exception as error:
        note = getattr(error, "__notes__", ["The model raised this on a calibration batch."])[0]
        line = next(iter(str(error).splitlines()), "no message")
        raise ContractError(
            f"calibration ({contract.calibration}): {note} ({type(error).__name__}: {line})"
        ) from error
    return _Reference.of_profile(profile, seen.hexdigest())


def _noted(batch: Any, digest: Any) -> Any:
    """Add a batch to the fingerprint of the calibration data."""
    for leaf in pytree.tree_leaves(batch):
        if isinstance(leaf, Tensor):
            array = leaf.detach().cpu().contiguous()
            digest.update(f"{array.dtype}{tuple(array.shape)}".encode())
            digest.update(array.view(-1).view(torch.uint8).numpy().tobytes())
    return batch


def _write(
    folder: Path,
    contract: ModelContract,
    identity: tuple[Source, Estimator],
    graph: GraphModule,
    profile: CalibrationProfile,
    inputs: tuple[Any, ...],
) -> Candidate:
    source, estimator = identity
    name = f"{source}-{estimator}"
    path = folder / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    save_graph(graph, inputs, path / MODEL_FILE)
    profile.save(path / PROFILE_FILE)
    worst, sqnr = _worst(profile)
    return Candidate(
        id=name,
        model=contract.name,
        source=source,
        estimator=estimator,
        path=path,
        units=profile.units,
        layers=tuple(layer.name for layer in planned_layers(graph)),
        worst_point=worst,
        worst_sqnr_db=sqnr,
        files={
            file: hashlib.sha256((path / file).read_bytes()).hexdigest()
            for file in (MODEL_FILE, PROFILE_FILE)
        },
    )


def _worst(profile: CalibrationProfile) -> tuple[str, float | None]:
    """The point whose own quantizer is predicted to lose most."""
    predicted = []
    for point in profile.points.values():
        if point.sketch is not None and point.clip_bound is not None and point.sketch.count:
            sqnr = predict(point.sketch, point.clip_bound).sqnr_db
            if sqnr is not None and sqnr != float("inf"):
                predicted.append((sqnr, point.name))
    if not predicted:
        return "", None
    sqnr, name = min(predicted)
    return name, sqnr
