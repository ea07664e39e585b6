"""`calibrate`: from a model and batches to a profile."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import nn
from torch.fx import GraphModule

from calidrift_agent._calibrate._batches import Batch, read_batches
from calidrift_agent._calibrate._eager import hooked, uncompiled
from calidrift_agent._calibrate._record import RailRecorder, UnitRecorder
from calidrift_agent._calibrate._session import SessionCalibration
from calidrift_agent._calibrate._static import StaticCalibration
from calidrift_agent._onnx import Session, is_session
from calidrift_agent._points import (
    CodePoints,
    Discovery,
    ForwardSignature,
    QuantizedGraph,
    discover,
    fingerprint_of,
    is_converted,
    is_quantized,
    require_module,
    static_points,
    training_operation,
)
from calidrift_agent._profile import (
    TOP_LIMIT,
    CalibrationProfile,
    Fingerprint,
    PointProfile,
    utc_now,
)
from calidrift_agent._vocabulary import Instrument
from calidrift_agent.errors import AttachError, ConfigurationError

_LOG: Final = logging.getLogger("calidrift_agent")
_SHOWN: Final = 5


@final
@dataclass(frozen=True, slots=True)
class CalibrateOptions:
    """Rarer settings of `calibrate`.

    Attributes:
        rank: The observed bound is the rank-th largest finite unit absmax, 1 to 32. With rank 1
            and n = 300 units of the same traffic, a new unit exceeds it with probability 1 / 301.
        outputs: Also observe outputs of convolution and linear layers (eager models).
        data_fingerprint: What identifies the calibration data, noted in the profile.
        preprocessing: What identifies the preprocessing; a profile with another one is refused.
    """

    rank: int = 1
    outputs: bool = False
    data_fingerprint: str = ""
    preprocessing: str = ""

    def __post_init__(self) -> None:
        if type(self.rank) is not int or not 1 <= self.rank <= TOP_LIMIT:
            raise ConfigurationError(
                f"rank is {self.rank!r}, but only ranks 1 to {TOP_LIMIT} are kept; choose one of "
                "these"
            )
        for name in ("data_fingerprint", "preprocessing"):
            if not isinstance(getattr(self, name), str):
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)!r}, but must be a text; give a version or a "
                    "digest"
                )


def calibrate(
    model: nn.Module | Session,
    batches: Iterable[Any],
    *,
    options: CalibrateOptions | None = None,
) -> CalibrationProfile:
    """Measure the reference of a model: bounds and sketches of every point.

    An eager model is observed by hooks that are removed again, also when its forward raises. A
    converted PT2E graph is interpreted twice per batch: once with its activation quantizers
    bypassed (bounds and sketches: what the values would be without quantization) and once as
    served (rail rates); its clip bounds are read from the graph. Either way every row of a batch
    is one unit and every element is in the sketch, but for positions that an `attention_mask` of
    shape (rows, tokens) calls padding: these count nowhere. A session is replayed on a second one
    of the same model, for both instruments at once, with all observed tensors of a batch in
    memory. An INT8 model of `torch.ao`, or one with static layers of torchao, has the clip
    instrument only: ranges are read from it, rail rates measured, and there are no observed bounds
    until the profile is merged with one of the FP32 model. A unit with a NaN or an infinity counts
    as infinitely large: no bound becomes infinite by it, but the bound's rank grows by one.

    Args:
        model: An eager `nn.Module` in eval mode (also behind `torch.compile`), what
            `convert_pt2e` returned, or an `onnxruntime.InferenceSession`.
        batches: Yields tensors, tuples (positional inputs) or mappings (keyword inputs; for a
            session its feeds), the batch as first dimension. Random units of the traffic that the
            model is meant for: the bound's meaning rests on it.
            For a model that generates text give whole texts, prompt and answer: in production a
            text is one unit, with its decode steps.
        options: Rarer settings.

    Returns:
        The profile. Points that never fired, or had no finite unit, are in it without a bound,
        listed by `CalibrationProfile.unobserved` and logged as a warning.

    Raises:
        AttachError: Not a model that can be observed, in training mode, or no point ever fired.
        ConfigurationError: No batches, a batch without rows or of another type, or fewer units
            than `options.rank`.

    Cost: one forward per batch plus about 6 ns per observed element (eager); three to six
    forwards per batch (graph).

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).eval()
        >>> profile = calibrate(net, [torch.tensor([[1.0, -3.0], [2.0, 0.5]])])
        >>> profile.units, profile.points["0:input"].observed_bound.value
        (2, 3.0)
    """
    options = options or CalibrateOptions()
    instrument = Instrument.RANGE
    if is_session(model):
        points, units, fingerprint = _calibrate_session(model, batches, options)
    else:
        inner = require_module(model)
        if isinstance(inner, GraphModule) and is_quantized(inner):
            points, units = _calibrate_graph(inner, batches, options)
        elif (static := static_points(inner)) is not None:
            points, units = _calibrate_static(inner, static, batches)
            instrument = Instrument.CLIP
        else:
            points, units = _calibrate_eager(inner, batches, options)
        fingerprint = fingerprint_of(
            inner, data=options.data_fingerprint, preprocessing=options.preprocessing
        )
    if units < options.rank:
        raise ConfigurationError(
            f"rank is {options.rank}, but the batches hold {units} units; give more batches or a "
            "lower rank"
        )
    _report_unobserved(points, instrument)
    return CalibrationProfile(
        points={point.name: point for point in points},
        units=units,
        instrument=instrument,
        fingerprint=fingerprint,
        created=utc_now(),
    )


def _calibrate_eager(
    model: nn.Module, batches: Iterable[Any], options: CalibrateOptions
) -> tuple[list[PointProfile], int]:
    discovery = discover(model, outputs=options.outputs)
    _require_points(model, discovery)
    modules = model.named_modules()
    training = next((name for name, one in modules if one.training and not is_converted(one)), None)
    if training is not None:
        raise AttachError(
            f"{f'the module {training}' if training else 'the model'} is in training mode, where "
            "activations depend on the batch; call model.eval() first"
        )
    recorder = UnitRecorder(len(discovery.points))

    def step(batch: Batch) -> None:
        recorder.begin(batch.frame)
        model(*batch.args, **batch.kwargs)
        recorder.end()

    with uncompiled(model), hooked(model, discovery.points, recorder.observe):
        units = _run(model, batches, step)
    return [
        PointProfile(
            name=point.name,
            observed_bound=recorder.bound(index, options.rank),
            sketch=recorder.sketch(index),
            aliases=point.aliases,
        )
        for index, point in enumerate(discovery.points)
    ], units


def _calibrate_static(
    model: nn.Module, found: CodePoints, batches: Iterable[Any]
) -> tuple[list[PointProfile], int]:
    if model.training:
        raise AttachError(
            "the model is in training mode, where activations depend on the batch; call "
            "model.eval() first"
        )
    calibration = StaticCalibration(model, found)
    with uncompiled(model), calibration.observing():
        units = _run(model, batches, calibration.step)
    return calibration.points(), units


def _calibrate_graph(
    graph_module: GraphModule, batches: Iterable[Any], options: CalibrateOptions
) -> tuple[list[PointProfile], int]:
    operation = training_operation(graph_module)
    if operation is not None:
        raise AttachError(
            f"the graph was exported in training mode (it holds {operation}), where activations "
            "depend on the batch or on chance; export model.eval() and convert again"
        )
    graph = QuantizedGraph(graph_module)
    recorder = UnitRecorder(len(graph.quantizers))
    rails = RailRecorder([quantizer.bound for quantizer in graph.quantizers])

    def step(batch: Batch) -> None:
        recorder.begin(batch.frame)
        one, named = batch.args, batch.kwargs
        graph.run(one, named, bypass=True, observe=recorder.observe, output=False)
        recorder.end()
        rails.begin(batch.frame)
        graph.run(one, named, bypass=False, observe=rails.observe, output=False)

    units = _run(graph_module, batches, step)
    points = []
    for index, quantizer in enumerate(graph.quantizers):
        low, high = rails.rates(index)
        points.append(
            PointProfile(
                name=quantizer.name,
                clip_bound=quantizer.bound,
                observed_bound=recorder.bound(index, options.rank),
                sketch=recorder.sketch(index),
                rail_low_rate=low,
                rail_high_rate=high,
                aliases=quantizer.aliases,
            )
        )
    return points, units


def _calibrate_session(
    session: Any, batches: Iterable[Any], options: CalibrateOptions
) -> tuple[list[PointProfile], int, Fingerprint]:
    calibration = SessionCalibration(session)
    units = _run(None, calibration.read(batches), calibration.step)
    fingerprint = calibration.fingerprint(options.data_fingerprint, options.preprocessing)
    return calibration.points(options.rank), units, fingerprint


def _run(model: nn.Module | None, batches: Iterable[Any], step: Callable[[Batch], None]) -> int:
    units = 0
    signature = None if model is None else ForwardSignature.of(model)
    with torch.no_grad():
        for batch in read_batches(batches, signature):
            try:
                step(batch)
            except Exception as error:
                error.add_note(f"The model raised this on calibration batch {batch.number}.")
                raise
            units += batch.rows
    if units == 0:
        raise ConfigurationError(
            "there are no calibration batches; yield at least one (an iterator that was already "
            "read through is empty)"
        )
    return units


def _require_points(model: nn.Module, discovery: Discovery) -> None:
    if discovery.points:
        return
    reasons = "; ".join(f"{name or 'the model'}: {why}" for name, why in discovery.skipped.items())
    raise AttachError(
        f"{type(model).__name__} has no convolution, linear or embedding layer to observe"
        f"{f' ({reasons})' if reasons else ''}; give the eager model, or the graph that "
        "convert_pt2e returned"
    )


def _report_unobserved(points: list[PointProfile], instrument: Instrument) -> None:
    if instrument is Instrument.RANGE:
        names = [point.name for point in points if point.observed_bound is None]
        fired = any(point.sketch is not None for point in points)
        missing = "bound for %s%s: never reached, or without a finite unit"
    else:
        names = [point.name for point in points if point.rail_high_rate is None]
        fired = len(names) < len(points)
        missing = "rail rate for %s%s: never reached"
    if not names:
        return
    if not fired:
        raise AttachError(
            f"none of the {len(points)} points fired with a dense floating-point tensor: the "
            "forward does not call these modules (give the one that is really run: behind a "
            "wrapper, the inner one) or feeds them nested or sparse tensors (pad them)"
        )
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    _LOG.warning(
        f"calibration: no {missing}",
        ", ".join(names[:_SHOWN]),
        more,
    )
