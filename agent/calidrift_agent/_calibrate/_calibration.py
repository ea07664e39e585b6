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
from calidrift_agent._points import (
    Discovery,
    QuantizedGraph,
    discover,
    fingerprint_of,
    is_quantized,
    require_module,
    training_operation,
)
from calidrift_agent._profile import TOP_LIMIT, CalibrationProfile, PointProfile, utc_now
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
    model: nn.Module, batches: Iterable[Any], *, options: CalibrateOptions | None = None
) -> CalibrationProfile:
    """Measure the reference of a model: bounds and sketches of every point.

    An eager model is observed by hooks that are removed again, also when its forward raises. A
    converted PT2E graph is interpreted twice per batch: once with its activation quantizers
    bypassed (bounds and sketches: what the values would be without quantization) and once as
    served (rail rates); its clip bounds are read from the graph. Either way every row of a batch
    is one unit and every element is in the sketch. A unit with a NaN or an infinity counts as
    infinitely large: no bound becomes infinite by it, but the bound's rank grows by one.

    Args:
        model: An eager `nn.Module` in eval mode (also behind `torch.compile`), or what
            `convert_pt2e` returned.
        batches: Yields tensors, tuples (positional inputs) or mappings (keyword inputs), the
            batch as first dimension. Random units of the traffic that the model is meant for:
            the bound's meaning rests on it.
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
    inner = require_module(model)
    if isinstance(inner, GraphModule) and is_quantized(inner):
        points, units = _calibrate_graph(inner, batches, options)
    else:
        points, units = _calibrate_eager(inner, batches, options)
    if units < options.rank:
        raise ConfigurationError(
            f"rank is {options.rank}, but the batches hold {units} units; give more batches or a "
            "lower rank"
        )
    _report_unobserved(points)
    return CalibrationProfile(
        points={point.name: point for point in points},
        units=units,
        instrument=Instrument.RANGE,
        fingerprint=fingerprint_of(
            inner, data=options.data_fingerprint, preprocessing=options.preprocessing
        ),
        created=utc_now(),
    )


def _calibrate_eager(
    model: nn.Module, batches: Iterable[Any], options: CalibrateOptions
) -> tuple[list[PointProfile], int]:
    discovery = discover(model, outputs=options.outputs)
    _require_points(model, discovery)
    training = next((name for name, one in model.named_modules() if one.training), None)
    if training is not None:
        raise AttachError(
            f"{f'the module {training}' if training else 'the model'} is in training mode, where "
            "activations depend on the batch; call model.eval() first"
        )
    recorder = UnitRecorder(len(discovery.points))

    def step(batch: Batch) -> None:
        recorder.begin(batch.rows)
        model(*batch.args, **batch.kwargs)
        recorder.end()

    with uncompiled(model), hooked(model, discovery.points, recorder.observe):
        units = _run(batches, step)
    return [
        PointProfile(
            name=point.name,
            observed_bound=recorder.bound(index, options.rank),
            sketch=recorder.sketch(index),
            aliases=point.aliases,
        )
        for index, point in enumerate(discovery.points)
    ], units


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
    rails = RailRecorder(graph.quantizers)

    def step(batch: Batch) -> None:
        recorder.begin(batch.rows)
        graph.run(batch.args, batch.kwargs, bypass=True, observe=recorder.observe)
        recorder.end()
        graph.run(batch.args, batch.kwargs, bypass=False, observe=rails.observe)

    units = _run(batches, step)
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


def _run(batches: Iterable[Any], step: Callable[[Batch], None]) -> int:
    units = 0
    with torch.no_grad():
        for batch in read_batches(batches):
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


def _report_unobserved(points: list[PointProfile]) -> None:
    names = [point.name for point in points if point.observed_bound is None]
    if not names:
        return
    if all(point.sketch is None for point in points):
        raise AttachError(
            f"none of the {len(points)} points fired with a dense floating-point tensor: the "
            "forward does not call these modules (give the one that is really run: behind a "
            "wrapper, the inner one) or feeds them nested or sparse tensors (pad them)"
        )
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    _LOG.warning(
        "calibration: no bound for %s%s: never reached, or without a finite unit",
        ", ".join(names[:_SHOWN]),
        more,
    )
