"""ONNX Runtime sessions: a row is replayed beside the request, on a second session."""

from typing import Any, Final, final

from calidrift_agent._attach._attachment import Attachment, AttachRequest
from calidrift_agent._attach._fitting import (
    profile_notes,
    require_instrument,
    require_unwatched,
)
from calidrift_agent._observe import (
    FLOAT_NOISE,
    QUANTIZED_NOISE,
    CheckedSession,
    Outlook,
    Seat,
    SessionShadow,
    Shadow,
)
from calidrift_agent._onnx import (
    Blueprint,
    FeedReader,
    Network,
    Survey,
    draw_outputs,
    draw_up,
    fingerprint_of_network,
    is_session,
    read_session,
    survey,
)
from calidrift_agent._taps import Ledger, PointTable
from calidrift_agent._vocabulary import Strategy
from calidrift_agent.errors import AttachError

_RUN: Final = "run"
_MEGABYTE: Final = 1_000_000


def recognises(model: Any) -> bool:
    """Whether `model` is an `onnxruntime.InferenceSession`."""
    return is_session(model)


def attach(request: AttachRequest) -> Attachment:
    """See `Kind`."""
    session, profile = request.model, request.profile
    require_unwatched(session, _RUN)
    network = Network(read_session(session))
    _require_same_names(session, network)
    found = survey(network)
    if not found.points:
        reasons = "; ".join(f"{name}: {why}" for name, why in found.skipped.items())
        raise AttachError(
            "the session's model has nothing to observe: no quantizer, convolution, matrix "
            f"product or embedding that can be replayed{f' ({reasons})' if reasons else ''}; give "
            "the model of another part, or quantize in the QDQ format"
        )
    names = [one.point.name for one in found.points]
    if profile is not None:
        require_instrument(profile)
        profile.require_fits(names, fingerprint_of_network(network))
    table = PointTable.of(
        [(one.point.name, one.point.aliases) for one in found.points],
        profile,
        [one.bound for one in found.points],
    )
    blueprint = draw_up(found, table.clips)
    fixed = _fixed_batches(blueprint)
    types = {one.name: one.type for one in session.get_inputs()}
    from_file = network.source.folder is not None
    outlook = Outlook(names, names, edges=False) if from_file else None
    whole = _Whole(network, frozenset(info.name for info in blueprint.inputs))
    noise = QUANTIZED_NOISE if found.quantized else FLOAT_NOISE

    def make_shadow(ledger: Ledger) -> Shadow:
        shadow = SessionShadow(blueprint, table, ledger, fixed)
        if outlook is None:
            return shadow
        return CheckedSession(shadow, whole, outlook, noise)

    return Attachment(
        tuple(one.point for one in found.points),
        found.discovery,
        table,
        Strategy.BESIDE,
        make_shadow,
        from_file,
        (*profile_notes(profile), *_notes(found, blueprint)),
        Seat(session, _RUN),
        reader=FeedReader(types, frozenset(info.name for info in blueprint.inputs)),
        outlook=outlook,
    )


def _require_same_names(session: Any, network: Network) -> None:
    """Refuse a file that was replaced by a model with other inputs or outputs.

    Raises:
        AttachError: The session has other ones than the file.
    """
    fed = {one.name for one in session.get_inputs()}
    given = [one.name for one in session.get_outputs()]
    if network.source.folder is None or (fed == set(network.inputs) and given == network.outputs):
        return
    raise AttachError(
        f"{network.source.name} holds a model with other inputs or outputs than the session that "
        "was made from it: the file was replaced since; make the session anew and watch that one"
    )


@final
class _Whole:
    """Draws the graph with its outputs once, and lets go of the file's weights then."""

    def __init__(self, network: Network, copied: frozenset[str]) -> None:
        self._network: Network | None = network
        self._copied = copied

    def __call__(self) -> Blueprint | None:
        """The graph; None where it needs inputs that are not copied."""
        network, self._network = self._network, None
        whole = None if network is None else draw_outputs(network)
        copied = whole is not None and {one.name for one in whole.inputs} <= self._copied
        return whole if copied else None


def _fixed_batches(blueprint: Blueprint) -> frozenset[int]:
    """Sizes that the first dimensions of the inputs are fixed to; empty unless it is one size."""
    sizes = set()
    for info in blueprint.inputs:
        shape = info.type.tensor_type.shape.dim
        if shape and not shape[0].HasField("dim_value"):
            return frozenset()
        if shape:
            sizes.add(int(shape[0].dim_value))
    return frozenset(sizes) if len(sizes) == 1 else frozenset()


def _notes(found: Survey, blueprint: Blueprint) -> tuple[str, ...]:
    notes = [
        "only session.run is observed: run_with_iobinding, run_with_ort_values and run_async pass "
        "unseen"
    ]
    if blueprint.weight_bytes >= _MEGABYTE:
        notes.append(
            f"the second session holds {blueprint.weight_bytes // _MEGABYTE} MB of weights"
        )
    folded = sum(one.folded for one in found.points)
    if folded:
        notes.append(
            f"{folded} quantizers stand for a ReLU that was folded into them and are observed "
            "behind one; the upper limit of a folded ReLU6 cannot be told from their range"
        )
    integers = set(found.quantization.integers.values())
    if integers:
        notes.append(
            f"what {', '.join(sorted(integers))} quantize inside themselves cannot be seen; "
            "quantize in the QDQ format"
        )
    return tuple(notes)
