"""What all INT8 models made of modules share: clip bounds of their own, ranges by a reference."""

from collections.abc import Callable

from calidrift_agent._attach._attachment import Attachment, AttachRequest
from calidrift_agent._attach._compiled import recognises as recognises_compiled
from calidrift_agent._attach._compiled import seat_of
from calidrift_agent._attach._fitting import profile_notes, require_fitting
from calidrift_agent._attach._reference import reference_module
from calidrift_agent._observe import (
    ClipShadow,
    CodeShadow,
    ModuleShadow,
    Outlook,
    ReferenceModel,
    Shadow,
    why_not_copy,
)
from calidrift_agent._points import (
    CodeGraph,
    CodePoint,
    CodePoints,
    Point,
    discover,
    require_module,
)
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._taps import Ledger, PointTable
from calidrift_agent._vocabulary import Instrument, Strategy
from calidrift_agent.errors import ProfileMismatchError


def attach_static(request: AttachRequest, found: CodePoints) -> Attachment:
    """Choose strategy, bounds and reference.

    Modules run as they are: the sampled call itself runs on taps. A graph of functions is replayed
    node by node, and a copy of compiled modules runs eagerly, both on one row, beside the request.

    Args:
        request: What is to be watched.
        found: Its quantizers.

    Raises:
        AttachError: It is watched already, or the reference cannot be used.
        ProfileMismatchError: The profile belongs to another model or instrument.
    """
    model = request.model
    live = require_module(model)
    seat = seat_of(model)
    _require_fitting(request, found)
    points = tuple(one.point for one in found.quantizers)
    table = PointTable.of(
        [(point.name, point.aliases) for point in points],
        request.profile,
        [one.bound for one in found.quantizers],
        Instrument.CLIP,
    )
    reference, notes = _reference(request, found)
    names = [point.name for point in points]
    outlook = Outlook(names, names, edges=False)
    make_shadow: Callable[[Ledger], Shadow] | None = None
    if found.graph is not None:
        nodes = [(one.node, one.exact) for one in found.quantizers if one.node is not None]
        graph = CodeGraph(found.graph, nodes)

        def make_shadow(ledger: Ledger) -> Shadow:
            return CodeShadow(graph, table, ledger, outlook)

    elif recognises_compiled(model):
        why = why_not_copy(live, points)
        if why is not None:
            outlook.close(why)

        def make_shadow(ledger: Ledger) -> Shadow:
            return ClipShadow(ModuleShadow(live, points, None, table, ledger, outlook))

    return Attachment(
        points,
        found.discovery,
        table,
        Strategy.INSTEAD if make_shadow is None else Strategy.BESIDE,
        make_shadow,
        False,
        notes,
        seat,
        reference,
        outlook=None if make_shadow is None else outlook,
    )


def _require_fitting(request: AttachRequest, found: CodePoints) -> None:
    """Refuse a profile of another model, or of an instrument that there is not.

    Raises:
        ProfileMismatchError: It does not fit; the sentence says what to do.
    """
    profile = request.profile
    if profile is not None and profile.units:
        if request.reference is None and profile.instrument is Instrument.RANGE:
            raise ProfileMismatchError(
                "the profile's bounds were measured with the range instrument, which a model that "
                "works on codes does not have; give the FP32 module that it was made from as "
                "reference=, or calibrate this model itself"
            )
        if request.reference is not None and profile.instrument is Instrument.CLIP:
            raise ProfileMismatchError(
                "the profile holds rail rates only, but with reference= ranges are measured; merge "
                "it with calibrate(reference, batches), or leave the reference out"
            )
    instrument = Instrument.CLIP if request.reference is None else Instrument.RANGE
    points = [one.point for one in found.quantizers]
    require_fitting(profile, request.model, points, instrument)


def _reference(
    request: AttachRequest, found: CodePoints
) -> tuple[ReferenceModel | None, tuple[str, ...]]:
    if request.reference is None:
        return None, (
            "only clipping is measured, and nothing is captured, without a reference: what a "
            "tensor would be without quantization does not exist in this model; give its FP32 "
            "module as reference= to measure coverage",
        )
    module = reference_module(request)
    by_name = {name: point for point in discover(module).points for name in _names(point)}
    taps = [_same_tensor(one, by_name, request.profile) for one in found.quantizers]
    reference = ReferenceModel(module, taps, seed=request.options.seed)
    missing = taps.count(None)
    notes = profile_notes(request.profile)
    if missing:
        notes = (
            *notes,
            f"{missing} of {len(taps)} points have no counterpart in the reference: only clipping "
            "is measured there",
        )
    return reference, notes


def _same_tensor(
    quantizer: CodePoint, by_name: dict[str, Point], profile: CalibrationProfile | None
) -> Point | None:
    """The reference's point of the tensor that a quantizer quantizes; None where not known."""
    known = None if profile is None else profile.find(quantizer.name)
    names = (*_names(quantizer.point), *(() if known is None else (known.name, *known.aliases)))
    return next((by_name[name] for name in names if name in by_name), None)


def _names(point: Point) -> tuple[str, ...]:
    return (point.name, *point.aliases)
