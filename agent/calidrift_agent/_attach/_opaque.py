"""Anything callable that cannot be opened: its inputs and outputs, and a reference beside it.

TorchScript modules (also loaded ones), AOTInductor packages, exported graphs without quantizers,
engines of other runtimes behind a module or a function.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import nn

from calidrift_agent._attach._attachment import Attachment, AttachRequest
from calidrift_agent._attach._fitting import (
    profile_notes,
    require_fitting,
    require_instrument,
    require_unwatched,
)
from calidrift_agent._attach._reference import reference_module
from calidrift_agent._attach._signature import inner_layers, input_names, is_script, kind_of
from calidrift_agent._observe import ArrayReader, EdgeShadow, InputNames, ReferenceModel, Seat
from calidrift_agent._points import Discovery, Point, discover, is_quantized, unwrap
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._taps import PointTable
from calidrift_agent._vocabulary import Role, Strategy
from calidrift_agent.errors import ProfileMismatchError

OUTPUT: Final = Point(name=":output", role=Role.OUTPUT, module="")
"""The point of what a model returns: its first floating-point tensor."""


def recognises(model: Any) -> bool:
    """Whether `model` can be called, but shows no layers that could be observed."""
    if isinstance(model, type) or not callable(model):
        return False
    if not isinstance(model, nn.Module):
        return not isinstance(model, torch.export.ExportedProgram)
    if is_script(model):
        return True
    if unwrap(model) is not model or model.__dict__.get("_compiled_call_impl") is not None:
        return False
    return not is_quantized(model) and not discover(model).points


def attach(request: AttachRequest) -> Attachment:
    """See `Kind`."""
    model = request.model
    known: Mapping[str, str] = {}
    if isinstance(model, nn.Module):
        require_unwatched(model)
        known = {} if is_script(model) else discover(model).skipped
    why = f"{kind_of(model)} shows none of its inner layers"
    if known:
        why = f"none of the inner layers of {kind_of(model)} can be observed"
    hidden = [name for name in inner_layers(model) if name not in known]
    return with_skipped(attach_edges(request, why, hidden=hidden), known)


def with_skipped(found: Attachment, known: Mapping[str, str]) -> Attachment:
    """Add why layers that are there, and could have had points, have none."""
    skipped = {**found.discovery.skipped, **known}
    if "" in known:  # the model is such a layer itself
        skipped[""] = f"{known['']}; {found.discovery.skipped['']}"
    return replace(found, discovery=Discovery(found.points, MappingProxyType(skipped)))


def attach_edges(request: AttachRequest, why: str, *, hidden: Iterable[str] = ()) -> Attachment:
    """Observe inputs and output of a callable, and the points of the reference that it has.

    Also for models of other kinds that must not be run a second time.

    Args:
        request: What is to be watched.
        why: Why no more than that is observed; the beginning of a sentence.
        hidden: Names of inner layers that are therefore not observed.

    Raises:
        AttachError: The reference cannot be used.
        ProfileMismatchError: The profile does not belong to the reference, or there is none.
    """
    model, profile = request.model, request.profile
    names, skipped = input_names(model, request.options.inputs)
    edges = (*_input_points(names), OUTPUT)
    inner: tuple[Point, ...] = ()
    reference = None
    if request.reference is None:
        require_instrument(profile)
        _require_edges(profile, edges, why)
        skipped |= dict.fromkeys(hidden, f"it is not observed: {why}")
        skipped[""] = f"{why}; give reference= to observe those of an FP32 module beside it"
    else:
        module = reference_module(request)
        found = discover(module).points
        require_fitting(profile, module, found)
        # A reference that is a single layer: its input is the very tensor of the input point.
        taken = {point.name for point in edges}
        inner = tuple(point for point in found if point.name not in taken)
        reference = ReferenceModel(module, inner, seed=request.options.seed)
        skipped[""] = f"{why}; the points named after layers are those of the reference"
    points = (*inner, *edges)
    table = PointTable.of([(point.name, point.aliases) for point in points], profile)
    return Attachment(
        points,
        Discovery(points, MappingProxyType(skipped)),
        table,
        Strategy.EDGES,
        lambda ledger: EdgeShadow(names.read, table, ledger, reference, first=len(inner)),
        True,
        (*profile_notes(profile), f"only inputs and output of the model are observed: {why}"),
        Seat(model) if isinstance(model, nn.Module) else Seat(model, None),
        reference,
        reader=None if isinstance(model, nn.Module) else ArrayReader(),
    )


def _input_points(names: InputNames) -> tuple[Point, ...]:
    observed = names.observed
    if observed is None:
        return (_input_point(""),)
    if len(observed) == 1:
        return (_input_point("", observed[0]),)
    return tuple(_input_point(f".{name}") for name in observed)


def _input_point(suffix: str, *others: str) -> Point:
    aliases = tuple(f":input.{name}" for name in others)
    return Point(name=f":input{suffix}", role=Role.INPUT, module="", aliases=aliases)


def _require_edges(profile: CalibrationProfile | None, edges: tuple[Point, ...], why: str) -> None:
    """Refuse a profile of inner layers, of which nothing would ever be seen.

    Raises:
        ProfileMismatchError: It is one.
    """
    if profile is None:
        return
    names = [point.name for point in edges]
    if set(profile.points) - set(names):
        raise ProfileMismatchError(
            f"the profile has points of inner layers, but {why}: only {', '.join(names)} can be "
            "observed. Give the FP32 module that the profile was made with as reference="
        )
    profile.require_fits(names)
