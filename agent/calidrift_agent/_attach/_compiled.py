"""Modules that serve compiled, wholly or in parts: a copy runs eagerly beside the request."""

from dataclasses import replace
from types import MappingProxyType, MethodType
from typing import Any, Final

from torch import nn

from calidrift_agent._attach._apart import unobserved
from calidrift_agent._attach._attachment import Attachment, AttachRequest
from calidrift_agent._attach._fitting import profile_notes, require_fitting, require_unwatched
from calidrift_agent._attach._opaque import attach_edges, with_skipped
from calidrift_agent._attach._signature import input_names, is_script
from calidrift_agent._observe import (
    SEES_COMPILED_CALLS,
    EdgeShadow,
    ModuleShadow,
    Outlook,
    Seat,
    is_compiled,
    why_not_copy,
)
from calidrift_agent._points import Discovery, discover, require_module
from calidrift_agent._taps import Ledger, PointTable
from calidrift_agent._vocabulary import Strategy

_IN_PLACE: Final = "_compiled_call_impl"
"""Where `model.compile()` leaves the compiled call; `nn.Module.__call__` looks there first."""
_NO_LAYERS: Final = "it has no convolution, linear or embedding layer"
_NO_POINTS: Final = "none of its inner layers can be observed"


def recognises(model: Any) -> bool:
    """Whether `model` is a module that is compiled, or in which a part is."""
    return (
        isinstance(model, nn.Module)
        and not is_script(model)
        and any(is_compiled(module) for module in model.modules())
    )


def seat_of(model: nn.Module) -> Seat:
    """Return where the calls of a module are intercepted that may have been compiled in place.

    Raises:
        AttachError: It is watched already.
    """
    require_unwatched(model, "forward", _IN_PLACE)
    in_place = model.__dict__.get(_IN_PLACE) is not None
    return Seat(model, _IN_PLACE) if in_place else Seat(model)


def _inner_seat(model: nn.Module, live: nn.Module) -> Seat:
    """Return where calls are seen that do not come through the wrapper, too.

    ``torch.compile(model)`` passes on whatever it does not have to the module in it (`generate`,
    say), which then calls itself. Where the wrapper calls that module as anybody would, before
    anything is compiled, all calls meet there.

    Raises:
        AttachError: It is watched already.
    """
    seat = seat_of(model)
    if live is model or seat.attribute == _IN_PLACE or not SEES_COMPILED_CALLS:
        return seat
    called = getattr(model.__dict__.get("forward"), "_torchdynamo_orig_callable", None)
    if not isinstance(called, MethodType) or called.__self__ is not live:
        return seat
    return seat_of(live)


def attach(request: AttachRequest) -> Attachment:
    """See `Kind`."""
    model, profile = request.model, request.profile
    live = require_module(model)
    seat = _inner_seat(model, live)
    found = discover(live, outputs=request.options.outputs)
    if not found.points:
        bare = attach_edges(request, _NO_POINTS if found.skipped else _NO_LAYERS)
        return replace(with_skipped(bare, found.skipped), seat=seat)
    require_fitting(profile, live, found.points)
    # In the table from the start: whether a copy may be run shows with the first request only.
    edges = attach_edges(replace(request, model=live, profile=None, reference=None), "").points
    names, _ = input_names(live, request.options.inputs)
    inner = found.points
    if {point.name for point in inner} & {point.name for point in edges}:
        inner = edges  # a single layer: its input and output are those of the model
    points = inner if inner is edges else (*inner, *edges)
    first = len(points) - len(edges)
    table = PointTable.of([(point.name, point.aliases) for point in points], profile)
    outlook = Outlook((point.name for point in inner), (point.name for point in points))
    why = why_not_copy(live, inner)
    if why is not None:
        outlook.close(why)

    def make_shadow(ledger: Ledger) -> ModuleShadow:
        reader = EdgeShadow(names.read, table, ledger, first=first)
        return ModuleShadow(live, inner, reader, table, ledger, outlook)

    return Attachment(
        points,
        Discovery(points, MappingProxyType(dict(found.skipped))),
        table,
        Strategy.BESIDE,
        make_shadow,
        True,
        profile_notes(profile),
        seat,
        outlook=outlook,
        unobserved=lambda: unobserved(live, points),
    )
