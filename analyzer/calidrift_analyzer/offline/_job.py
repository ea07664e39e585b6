"""The child's part: the user's model over the recorded inputs, into a database that is thrown away.

The only place of this package where the user's code runs.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import nlargest
from pathlib import Path
from typing import Any, Final, Protocol, final

import numpy as np
import torch
from torch import Tensor, nn

import calidrift_agent
from calidrift_agent import CalibrateOptions, calibrate
from calidrift_agent._points import (
    ForwardSignature,
    Frame,
    QuantizedGraph,
    batch_rows,
    discover,
    fingerprint_of,
)
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._state import PointMeta, StateMeta, Window, new_process_id
from calidrift_agent._vocabulary import Instrument, Role, Strategy
from calidrift_analyzer.backend import load_graph
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.contract import Progress, UserCode
from calidrift_analyzer.errors import CalidriftError, ContractError
from calidrift_analyzer.offline._inputs import InputSpec, Recording, read_batches, shapes_of
from calidrift_analyzer.offline._recorder import UnitWindow
from calidrift_analyzer.offline._sources import DATABASE, PROFILE, Source
from calidrift_analyzer.records import read_record
from calidrift_analyzer.store import Store

__all__ = ["run"]

_ROWS: Final = 32
"""Rows of a batch, and so units between two looks of the evidence."""
_GROUP: Final = 16
"""Windows that are stored together."""
_TOLD: Final = 100

_Observe = Callable[[int, Tensor], None]
_Outside = tuple[str, int, str | None, str, float | None]


def run(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Measure recorded inputs.

    Args:
        request: As `assess_inputs` writes it.
        progress: Called for every batch.

    Returns:
        What the windows in the database do not say.
    """
    contract = read_record(ModelContract, request["contract"], source="the request")
    sources = [read_record(Source, one, source="the request") for one in request["sources"]]
    folder = Path(request["folder"])
    progress("building the model", 0, 0)
    code = UserCode(contract)
    model = code.model()
    spec = InputSpec.of(model, code.example_inputs())
    recordings = _open(sources, spec, progress)
    if request["profile"] is None:
        profile = _calibrated(code, contract, model, progress)
        profile.save(folder / PROFILE)
    else:
        profile = CalibrationProfile.load(Path(request["profile"]))
    instrument: _Instrument = (
        _Eager(model, profile)
        if request["graph"] is None
        else _Graph(Path(request["graph"]), profile)
    )
    by_folder = bool(request["by_folder"])
    measured = _Measured(contract.name, profile, instrument, by_folder)
    with Store.open(folder / DATABASE) as store:
        measured.run(recordings, spec, store, progress)
    return {
        "outside": [list(one) for _, one in nlargest(_TOLD, measured.outside, key=_ratio)],
        "selected": sum(one.rows for one in recordings if one.selected),
        "rows": sum(one.rows for one in recordings),
    }


def _open(sources: Sequence[Source], spec: InputSpec, progress: Progress) -> list[Recording]:
    """Look into every file first: a bad one must not cost minutes."""
    found = []
    for number, source in enumerate(sources, start=1):
        found.append(Recording(source, spec))
        progress("reading the inputs", number, len(sources))
    if all(one.is_capture for one in found):
        found.sort(key=lambda one: one.time_ns)
    return found


def _calibrated(
    code: UserCode, contract: ModelContract, model: nn.Module, progress: Progress
) -> CalibrationProfile:
    def counted() -> Iterator[Any]:
        for number, batch in enumerate(code.calibration(), start=1):
            yield batch
            progress("measuring the calibration set", number, 0)

    options = CalibrateOptions(preprocessing=contract.preprocessing or "")
    try:
        return calibrate(model, counted(), options=options)
    except CalidriftError:
        raise
    except Exception as error:
        note = getattr(error, "__notes__", ["The model raised this on a calibration batch."])[0]
        raise ContractError(
            f"calibration ({contract.calibration}): {note} ({_told(error)})"
        ) from error


class _Instrument(Protocol):
    """Runs a model so that its points can be seen without activation quantization."""

    names: tuple[str, ...]

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], into: UnitWindow) -> None:
        """Run one batch."""
        ...


@final
class _Eager:
    """The FP32 model, observed through hooks."""

    def __init__(self, model: nn.Module, profile: CalibrationProfile) -> None:
        self._model = model
        self._points = discover(model).points
        self.names = tuple(point.name for point in self._points)
        profile.require_fits(self.names, fingerprint_of(model))

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], into: UnitWindow) -> None:
        """Run one batch."""

        def observe(index: int, tensor: Tensor) -> None:
            into.observe(index, tensor)
            into.observe_clip(index, tensor)

        handles = []
        try:
            for index, point in enumerate(self._points):
                module = self._model.get_submodule(point.module)
                hook = _hook(index, observe, point.role)
                handles.append(
                    module.register_forward_pre_hook(hook, with_kwargs=True)
                    if point.role is Role.INPUT
                    else module.register_forward_hook(hook)
                )
            self._model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()


@final
class _Graph:
    """The INT8 graph of a version: once without its activation quantizers, once as it serves."""

    def __init__(self, path: Path, profile: CalibrationProfile) -> None:
        graph = load_graph(path)
        self._graph = QuantizedGraph(graph)
        self.names = tuple(one.name for one in self._graph.quantizers)
        profile.require_fits(self.names, fingerprint_of(graph))

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], into: UnitWindow) -> None:
        """Run one batch."""
        self._graph.run(args, kwargs, bypass=True, observe=into.observe)
        self._graph.run(args, kwargs, bypass=False, observe=into.observe_clip)


def _hook(index: int, observe: _Observe, role: Role) -> Callable[..., None]:
    def before(_: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        value = args[0] if args else kwargs.get("input", next(iter(kwargs.values()), None))
        if isinstance(value, Tensor):
            observe(index, value)

    def after(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            observe(index, output)

    return before if role is Role.INPUT else after


@final
class _Measured:
    """The windows of one run, and the rows that left a bound."""

    def __init__(
        self, model: str, profile: CalibrationProfile, instrument: _Instrument, by_folder: bool
    ) -> None:
        self._profile = profile
        self._instrument = instrument
        self._by_folder = by_folder
        self._number = 0
        self._end_ns = 0
        self._meta = _meta(model, profile, instrument.names)
        self.outside: list[tuple[float, _Outside]] = []

    def run(
        self, recordings: Sequence[Recording], spec: InputSpec, store: Store, progress: Progress
    ) -> None:
        """Run every row once."""
        total, done = sum(one.rows for one in recordings), 0
        waiting: list[Window] = []
        for batch, labels in read_batches(recordings, _ROWS):
            waiting.append(self._window(batch, labels, spec))
            if len(waiting) == _GROUP:
                store.ingest(self._meta, waiting, batch=1)
                waiting = []
            done += len(labels)
            progress("running the inputs", done, total)
        store.ingest(self._meta, waiting, batch=1)

    def _window(
        self, batch: Mapping[str, Tensor], labels: Sequence[tuple[Recording, int]], spec: InputSpec
    ) -> Window:
        args = tuple(batch[name] for name in spec.names)
        kwargs = {name: tensor for name, tensor in batch.items() if name not in spec.names}
        signature = ForwardSignature({name: at for at, name in enumerate(spec.names)})
        rows = batch_rows(args, kwargs) or len(labels)
        into = UnitWindow(
            self._instrument.names, self._profile, Frame.of(args, kwargs, rows, signature)
        )
        try:
            with torch.no_grad():
                self._instrument.run(args, kwargs, into)
        except CalidriftError:
            raise
        except Exception as error:
            first, last = labels[0], labels[-1]
            upto = "" if first == last else f" to {last[0].source.name} row {last[1]}"
            raise ContractError(
                f"the model raised {_told(error)} on {first[0].source.name} row {first[1]}{upto} "
                f"({shapes_of(batch)}); its example inputs have "
                f"{', '.join(str(tuple(one.shape)) for one in spec.examples)}"
            ) from error
        segments = [self._segment(recording) for recording, _ in labels]
        self._note_outside(into, labels, segments)
        window = into.window(self._number, self._times(labels), segments)
        self._number += 1
        return window

    def _segment(self, recording: Recording) -> str | None:
        return (recording.source.folder or None) if self._by_folder else recording.segment

    def _times(self, labels: Iterable[tuple[Recording, int]]) -> tuple[int, int]:
        """Start and end; ends only ever grow, because evidence looks at windows by their end."""
        times = [recording.time_ns for recording, _ in labels]
        self._end_ns = max(self._end_ns + 1, max(times))
        return min(*times, self._end_ns), self._end_ns

    def _note_outside(
        self,
        into: UnitWindow,
        labels: Sequence[tuple[Recording, int]],
        segments: Sequence[str | None],
    ) -> None:
        bounds = into.bounds
        known = ~np.isnan(bounds)
        if not known.any():
            return
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = into.absmax[known] / bounds[known][:, None]
        # A point that never holds anything but 0 has the bound 0.
        ratios[np.isnan(ratios)] = 0.0
        names = np.array(self._instrument.names)[known]
        for place, (recording, row) in enumerate(labels):
            worst = int(ratios[:, place].argmax())
            ratio = float(ratios[worst, place])
            if ratio > 1.0:
                told = ratio if np.isfinite(ratio) else None
                entry = (recording.source.name, row, segments[place], str(names[worst]), told)
                self.outside.append((ratio, entry))
        if len(self.outside) > 4 * _TOLD:
            self.outside = nlargest(_TOLD, self.outside, key=_ratio)


def _ratio(outside: tuple[float, _Outside]) -> float:
    return outside[0]


def _meta(model: str, profile: CalibrationProfile, names: Sequence[str]) -> StateMeta:
    metas = []
    for name in names:
        found = profile.find(name)
        bound = None if found is None else found.observed_bound
        clip = None if found is None else found.clip_bound
        metas.append(
            PointMeta(
                name=name,
                observed_bound=None if bound is None else bound.value,
                clip_lo=None if clip is None else clip.lo,
                clip_hi=None if clip is None else clip.hi,
                aliases=() if found is None else found.aliases,
            )
        )
    return StateMeta(
        process=new_process_id(),
        boot="",
        pid=0,
        started_ns=time.time_ns(),
        model=model,
        profile=profile.digest,
        instrument=Instrument.RANGE,
        strategy=Strategy.INSTEAD,
        agent_version=calidrift_agent.__version__,
        window_seconds=1.0,
        points=tuple(metas),
    )


def _told(error: BaseException) -> str:
    line = next((one for one in str(error).splitlines() if one.strip()), "no message")
    return f"{type(error).__name__}: {line}"
