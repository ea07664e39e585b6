"""`watch`: the entry to the agent."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack, final

from torch import nn

import calidrift_agent
from calidrift_agent import _environment
from calidrift_agent._attach import Attachment, AttachRequest, WatchOptions, plan_attachment
from calidrift_agent._capture import CaptureOptions, KeyRing
from calidrift_agent._observe import Beside, Decider, Gate, Instead, Keep, Sampler, Steps, View
from calidrift_agent._onnx import Session
from calidrift_agent._points import ForwardSignature
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._state import StateMeta, Window, boot_id, new_process_id
from calidrift_agent._taps import Ledger
from calidrift_agent._vocabulary import (
    AgentState,
    CountColumn,
    Instrument,
    RequestColumn,
    Strategy,
)
from calidrift_agent._watch._active import Active, losses_of, silence_of
from calidrift_agent._watch._allowed import AllowedInputs
from calidrift_agent._watch._arguments import require_arguments
from calidrift_agent._watch._cost import cost_of, reference_units
from calidrift_agent._watch._engine import Engine
from calidrift_agent._watch._living import register
from calidrift_agent._watch._parts import Parts
from calidrift_agent._watch._report import AttachReport, Reference
from calidrift_agent._watch._storage import KILL_FILE, Storage
from calidrift_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from calidrift_agent._export import WatchCollector

_SHADOW_QUEUE: Final = 1
"""Copied calls that may wait for their shadow pass."""
_PENDING: Final = 64
"""Observed calls that may wait for the drain."""


@final
class Watch:
    """A watched model; made by `watch`, ended by `close` or a `with` block.

    Any number of threads may use one watch at the same time.
    """

    def __init__(self, meta: StateMeta, active: Active | None, model: Any, note: str = "") -> None:
        self._meta = meta
        self._active = active
        self._note = note
        by_hand = active is not None and active.attachment.seat.attribute is None
        self._model = active.gate if active is not None and by_hand else model

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call what is watched.

        The way in for a callable in which nothing can be replaced (a function, an engine): calls
        made past the watch are not seen. Any other model may be called either way.
        """
        return self._model(*args, **kwargs)

    def report(self) -> AttachReport:
        """Return what is being observed, and what fired so far. Waiting calls are counted first."""
        meta, total = self.snapshot()
        active = self._active
        rows = total.counts[:, CountColumn.ROWS].tolist()
        view = View(meta.strategy) if active is None else active.view
        fired = {
            point.name: bool(seen)
            for point, seen in zip(meta.points, rows, strict=True)
            if view.points is None or point.name in view.points
        }
        observed_calls = int(total.requests[RequestColumn.OBSERVED])
        has_reference = any(point.observed_bound is not None for point in meta.points)
        return AttachReport(
            model=meta.model,
            points=tuple(fired),
            observed=tuple(name for name, seen in fired.items() if seen),
            skipped=view.skipped if active is None else active.skipped(view),
            strategy=view.strategy,
            instrument=meta.instrument,
            reference=Reference.OBSERVED if has_reference else Reference.NONE,
            active=active is not None and active.engine.stopped is None,
            sampling_ratio=0.0 if active is None else active.engine.ratio,
            observed_calls=observed_calls,
            state_file=None if active is None else active.storage.path,
            notes=(
                (self._note,)
                if active is None
                else (
                    *active.notes(),
                    *losses_of(total.requests),
                    *self._silence(active, meta, total, fired),
                )
            ),
            unread_calls=0 if active is None else active.engine.books.tally.unread,
            cost=None if active is None else cost_of(active.engine, active.storage),
            references=() if active is None else reference_units(active.storage, meta.points),
        )

    @staticmethod
    def _silence(
        active: Active, meta: StateMeta, total: Window, fired: Mapping[str, bool]
    ) -> tuple[str, ...]:
        """Sentences about calls that did not come, and points that did not fire."""
        requests = total.requests
        calls = int(requests[RequestColumn.SEEN] + requests[RequestColumn.STEPS])
        seconds = (time.time_ns() - meta.started_ns) * 1e-9
        return (
            *active.absence(calls, seconds),
            *silence_of(fired, int(requests[RequestColumn.OBSERVED])),
        )

    def flush(self) -> Window:
        """Count everything that waits, close the window now and write it.

        Returns:
            The closed window.
        """
        if self._active is None:
            return self.snapshot()[1]
        return self._active.engine.flush()

    def snapshot(self) -> tuple[StateMeta, Window]:
        """Return who this is, and the sum of everything counted so far, the open window included.

        Cost: the drain of what waits, then 0.1 ms for 40 points.
        """
        if self._active is None:
            return self._meta, Window.empty(0)
        return self._active.engine.snapshot()

    def collector(self) -> "WatchCollector":
        """Return a Prometheus collector of this watch, to be registered with a registry."""
        # Here and not above: a host without Prometheus does not need its client loaded.
        from calidrift_agent._export import ExportSnapshot, WatchCollector

        active = self._active
        if active is None:
            return WatchCollector()
        return WatchCollector(lambda: ExportSnapshot(*active.engine.recent()))

    def close(self) -> None:
        """Give the model back as it was, write the last window and release the files.

        Safe to repeat. Requests that are running end undisturbed.
        """
        if self._active is not None:
            self._active.engine.close()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = self._note if self._active is None else self._active.engine.stopped or "active"
        return f"<Watch of {self._meta.model!r}: {state}>"


class WatchArguments(TypedDict, total=False):
    """Further arguments of `watch`; see there."""

    reference: nn.Module | None
    options: WatchOptions | None


def watch(
    model: Callable[..., Any] | Session,
    *,
    name: str,
    profile: CalibrationProfile | str | PathLike[str] | None = None,
    state_dir: str | PathLike[str] | None = None,
    sample_rate: float = 0.01,
    capture: CaptureOptions | None = None,
    **rarer: Unpack[WatchArguments],
) -> Watch:
    """Watch the activation ranges of a model that serves requests.

    An eager module is observed *instead*: the sampled call itself runs on taps. What is compiled,
    a quantized graph or an ONNX session is observed *beside*: one row of a sampled request is
    copied and replayed on another thread. What cannot be opened (TorchScript, a package, any
    callable) is observed at its *edges*: inputs and output. Outputs are never changed, nothing is
    ever raised into a request, and a request that is not sampled pays 0.5 us.

    Limits: a forward that shallow-copies its own layers (`copy.copy`) runs the original in a
    sampled call, and so does a shallow copy of the watched root. A model pickled while watched
    needs `weights_only=False` to load. Where `x.data` is written between two layers that both
    read `x`, the second is charged with what the first saw.

    A model may be compiled before or after; what is to be watched is the model that requests call.
    Where it is compiled afterwards, or where the module inside a compiled one is watched, calls
    from compiled code are counted and replayed beside, and nothing is compiled again. Not so where
    compiled code has taken the model's own code in: a part of a larger compiled module, or the
    wrapper of a `torch.nn` class such as `Sequential`. Those calls pass unseen, and the report says
    so; watch what was compiled. A compiled function that runs layers it is given leaves inputs and
    output to be observed. Layers that are added after `watch`, or kept in plain lists, are not
    observed, and the report names them. What is made of a watched model (TorchScript, export, FX,
    ONNX, a copy) is made of the plain one and is not watched.

    Args:
        model: What requests call: an `nn.Module`, eager, compiled or quantized, an
            `onnxruntime.InferenceSession`, or any callable. Where nothing can be put in its way
            (a function, an engine), requests must call the watch instead of it.
        name: Name of the model in files and metrics.
        profile: The calibration profile, or its path. Without one, sketches and extremes are
            recorded, but neither coverage nor exceedance.
        state_dir: Folder for state files and captures; default `CALIDRIFT_STATE_DIR`, else
            nothing leaves the memory of the process.
        sample_rate: Largest share of calls that is observed, 0 to 1; 1.0 observes every call
            that the budget allows.
        capture: Keep rows of requests, within these limits; needs a `state_dir`. Off by default:
            captures are inputs of users.
        **rarer: `reference` and `options`.
            reference: An FP32 version of the model, run beside on one copied row of each observed
            request: its output is what the served one is compared with (harm without labels), and
            a model that cannot be opened (TorchScript, an engine) has the reference's points. Its
            modules are copied, its weights are shared; it must not draw random numbers.
            options: Everything else.

    Raises:
        AttachError: Not a model, watched already, or nothing in it can be observed.
        ProfileMismatchError: The profile belongs to another model.
        ProfileError: The profile cannot be read.
        ConfigurationError: An argument or an environment variable is not usable.
        TypeError: An argument of another name.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
        >>> with watch(net, name="demo", sample_rate=1.0) as one:
        ...     _ = net(torch.ones(2, 4))
        ...     one.report().observed
        ('0:input',)
    """
    if foreign := sorted(rarer.keys() - WatchArguments.__annotations__.keys()):
        raise TypeError(f"watch() got an unexpected keyword argument {foreign[0]!r}")
    require_arguments(name, sample_rate, profile, state_dir, capture, rarer)
    options = rarer.get("options") or WatchOptions()
    environment = _environment.read()
    folder = environment.state_dir if state_dir is None else _environment.folder_at(state_dir)
    if capture is not None and folder is None:
        raise ConfigurationError(
            "capture was given but no state_dir, and captures are files; give state_dir or set "
            f"{_environment.CALIDRIFT_STATE_DIR}"
        )
    if capture is not None and capture.encrypt:
        KeyRing().require()
    off = _why_off(environment.disabled, folder)
    if off is not None:
        return Watch(_meta(name, None, "", options), None, model, off)
    if profile is not None and not isinstance(profile, CalibrationProfile):
        profile = CalibrationProfile.load(profile)
    attachment = plan_attachment(AttachRequest(model, profile, options, rarer.get("reference")))
    allowed = None
    if capture is not None and capture.inputs is not None:
        allowed = AllowedInputs(model, tuple(capture.inputs))
        capture = replace(capture, inputs=None)  # chosen by the names that the model has
    ledger_stop: list[Engine] = []

    def exhausted() -> None:
        for engine in ledger_stop:
            engine.stop(AgentState.ERRORS, "there were too many errors in a row")

    ledger = Ledger(name, exhausted, strict=environment.strict)
    storage = Storage(folder, profile, capture, ledger)
    meta = _meta(name, attachment, "" if profile is None else profile.digest, options)
    gate = Gate(attachment.seat.owner, attachment.seat.attribute)
    if allowed is not None and attachment.seat.attribute == "forward":
        allowed.follow(gate)
    sampler = Sampler(float(sample_rate), options.seed, options.key_salt.encode())
    parts = Parts(
        gate=gate,
        table=attachment.table,
        sampler=sampler,
        decider=Decider(gate, sampler, every=ForwardSignature.of(gate.owner).decodes),
        ledger=ledger,
        meta=meta,
        storage=storage,
        options=options,
        sample_rate=float(sample_rate),
        allowed=allowed,
    )
    engine = Engine(parts, _PENDING if attachment.make_shadow is None else _SHADOW_QUEUE)
    ledger_stop.append(engine)
    keep = Keep(
        inputs=attachment.reference is not None,
        batch=capture is not None,
        output=attachment.keep_output or attachment.reference is not None,
        whole=None if attachment.reference is None else attachment.reference.wants_whole,
    )
    register(engine)  # first: a child that is forked while it starts must begin anew as well
    _start(engine, parts, attachment, keep)
    return Watch(meta, Active(engine, attachment, storage, parts.gate), model)


def _start(engine: Engine, parts: Parts, attachment: Attachment, keep: Keep) -> None:
    observer: Instead | Beside
    shadow = None
    if attachment.make_shadow is None:
        observer = Instead(
            parts.gate,
            attachment.points,
            parts.table,
            parts.decider,
            parts.ledger,
            engine.intake,
            keep=keep,
        )
        if attachment.compiled is not None:
            shadow = attachment.compiled(parts.ledger)
            observer.compiled = Beside(
                parts.gate, shadow, parts.decider, parts.ledger, engine.intake, keep=keep
            )
    else:
        shadow = attachment.make_shadow(parts.ledger)
        observer = Beside(
            parts.gate,
            shadow,
            parts.decider,
            parts.ledger,
            engine.intake,
            keep=keep,
            reader=attachment.reader,
        )
    engine.start(observer, shadow, attachment.reference, _steps(parts, observer))


def _steps(parts: Parts, observer: Instead | Beside) -> Steps | None:
    """What tells decode steps from requests, for a model that may be called with a cache."""
    signature = ForwardSignature.of(parts.gate.owner)
    if not signature.decodes:
        return None
    return Steps(
        parts.gate,
        parts.decider,
        observer,
        signature,
        parts.ledger,
        limit=parts.options.steps_per_request,
    )


def _meta(
    name: str, attachment: Attachment | None, digest: str, options: WatchOptions
) -> StateMeta:
    return StateMeta(
        process=new_process_id(),
        boot=boot_id(),
        pid=os.getpid(),
        started_ns=time.time_ns(),
        model=name,
        profile=digest,
        instrument=Instrument.RANGE if attachment is None else attachment.measured,
        strategy=Strategy.INSTEAD if attachment is None else attachment.strategy,
        agent_version=calidrift_agent.__version__,
        window_seconds=options.window_seconds,
        points=() if attachment is None else attachment.table.metas,
    )


def _why_off(disabled: bool, folder: Path | None) -> str | None:
    if disabled:
        return f"switched off by {_environment.CALIDRIFT_DISABLED}"
    if folder is None:
        return None
    try:
        killed = (folder / KILL_FILE).exists()
    except OSError as error:
        raise ConfigurationError(
            f"state_dir {folder} cannot be looked into ({error.strerror}); give a folder that this "
            "user may enter, read and write"
        ) from error
    return f"switched off by the kill file {folder / KILL_FILE}" if killed else None
