"""What one sampled call leaves behind: one reading per observed tensor."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, final

import torch
from torch.utils._pytree import tree_leaves

from calidrift_agent._points import Frame
from calidrift_agent._taps._codes import CodeReading
from calidrift_agent._taps._function_modes import function_modes, put_modes, take_modes
from calidrift_agent._taps._harvest import Harvest
from calidrift_agent._taps._ledger import Ledger
from calidrift_agent._taps._measure import is_observable, of_one_row
from calidrift_agent._taps._measurer import Measurer, Raw
from calidrift_agent._taps._memory import Shelf, ShelfPool
from calidrift_agent._taps._reading import Reading
from calidrift_agent._taps._stride import WHOLE_LIMIT
from calidrift_agent._taps._table import PointTable
from calidrift_agent._vocabulary import Stage

if TYPE_CHECKING:
    from calidrift_agent._taps._native._tap import Strip

Later = Callable[[Callable[[int, object], None]], None]
"""Observes something in the drain; called with what takes a point and a tensor of one row."""
_DRAW_BITS: Final = 32
_random = Random()
_in_inference_mode: Final = torch.is_inference_mode_enabled


@final
class Recorder:
    """Collects what the taps of one call see; used by the thread of the call only.

    Tensors go to the native tap where there is one and where it can read them, else to Python:
    small ones are copied whole and measured later, large ones are measured at once.

    Args:
        table: Points and bounds.
        ledger: Where errors go; `observe` never raises.
        shelves: Memory.
        rows: Rows of the request, at least 1.
        repeat: Copies of one row that the batch consists of (a shadow pass of a graph that
            refuses a batch of one); only the first is read.
        frame: Where rows and padded positions are; None where rows alone say it all.

    Attributes:
        rows: Rows of the request.
        unit: Row that stands for the request: of what is observed later, the only one.
        failed: Whether a tap failed.
        codes: What was kept of quantized tensors, of which only codes can be seen.
        passed: Kind of tensors that were passed over because they have no range that could be
            observed ("tensors of complex numbers"); "" where there were none.
        strip: Where the native tap writes; None where there is none for this call.
    """

    __slots__ = (
        "_draw",
        "_elements",
        "_frame",
        "_harvest",
        "_known",
        "_last",
        "_later",
        "_ledger",
        "_own_ns",
        "_raw",
        "_repeat",
        "_shelf",
        "_shelves",
        "_table",
        "_version",
        "_versioned",
        "codes",
        "failed",
        "passed",
        "rows",
        "strip",
        "unit",
    )

    def __init__(
        self,
        table: PointTable,
        ledger: Ledger,
        shelves: ShelfPool,
        *,
        rows: int,
        repeat: int = 1,
        frame: Frame | None = None,
    ) -> None:
        self._table = table
        self._ledger = ledger
        self._shelves = shelves
        shelf = shelves.take()
        self._shelf: Shelf | None = shelf
        self._frame = frame = None if frame is None or frame.is_plain else frame
        self._repeat = repeat
        self._draw = draw = _random.getrandbits(_DRAW_BITS)
        self._known: Measurer | None = None
        self._raw: list[Raw] = []
        self._harvest: Harvest | None = None
        self._elements = self._own_ns = 0
        self._last: torch.Tensor | None = None
        self._version = -1
        self._versioned = not _in_inference_mode()
        self._later: list[Later] = []
        self.rows = rows
        self.unit = 0
        self.failed = False
        self.passed = ""
        self.codes: list[CodeReading] = []
        self.strip: Strip | None = None
        if shelves.native and (frame is None or not frame.masks):
            self.strip = shelf.strip_for(table)
            self.strip.begin(rows, repeat, draw)

    def observe_input(self, point: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Observe the tensor that a module was called with."""
        self.observe(
            point, args[0] if args else kwargs.get("input", next(iter(kwargs.values()), None))
        )

    def observe(self, point: int, value: object) -> None:
        """Observe a dense floating-point tensor, or a quantized one; others are passed over."""
        strip = self.strip
        if strip is None or not strip.take(point, value):
            self.observe_any(point, value)

    def observe_any(self, point: int, value: object) -> None:
        """Observe a tensor that the native tap leaves alone, or any where there is none.

        A tensor that was observed just before and was not written to since is not read again.
        (Inference tensors do not count writes: they are copied again, which costs less than
        comparing them.)
        """
        started = perf_counter_ns()
        modes = take_modes() if function_modes() else None  # of the host
        try:
            # Python that runs between two layers finds its caches cold: 0.3 us per step. So the
            # ordinary case is short, and what can be looked at later is.
            if (
                type(value) is torch.Tensor
                and (numel := value.numel()) <= WHOLE_LIMIT
                and value.is_cpu
            ):
                raw, shelf = self._raw, self._shelf
                if self._versioned:
                    if value is self._last and 0 <= self._version == value._version:
                        raw.append((point, None))
                        return
                    self._last = value
                    self._version = -1 if value.is_inference() else value._version
                    if value.requires_grad:
                        value = value.detach()
                position = len(raw)
                if (
                    shelf is not None
                    and position < len(shelf.shapes)
                    and shelf.shapes[position] == value.shape
                    and shelf.buffers[position].dtype is value.dtype
                ):
                    raw.append((point, shelf.buffers[position].copy_(value)))
                    self._elements += numel
                else:
                    self._keep(point, value)
            elif not isinstance(value, torch.Tensor) or not value.is_cpu:
                pass  # reading a tensor of another device would make the request wait for it
            elif is_observable(value):
                self._observe_large(point, value)
            else:
                _keep_codes(self, point, value)
        except Exception as error:
            if _is_transformed(value):
                self.failed = True  # no error of anybody's: there is no plain memory to read
                self.passed = _unsuitable_kind(value)
            else:
                self.fail(error)
        finally:
            if modes is not None:
                put_modes(modes)
            self._own_ns += perf_counter_ns() - started

    def note_passed(self, *values: object) -> None:
        """Say of which kind tensors in these values are that cannot be observed, if there are."""
        for value in tree_leaves(values):
            self.passed = _unsuitable_kind(value) or self.passed

    def add(self, point: int, reading: Reading) -> None:
        """Take in a tensor that was measured elsewhere, for this point alone."""
        self._raw.append((point, replace(reading, points=[point])))
        self._elements += reading.sample.size

    @property
    def count(self) -> int:
        """Tensors observed so far."""
        native = 0 if self.strip is None else self.strip.marks
        return len(self._raw) + len(self.codes) + native

    def postpone(self, prepare: Callable[[], Later | None]) -> None:
        """Leave it to the drain to observe something, of one row only.

        Args:
            prepare: Copies what that needs, now, and returns what the drain is to call; None for
                nothing.
        """
        started = perf_counter_ns()
        modes = take_modes()
        try:
            later = prepare()
            if later is not None:
                self._later.append(later)
        except Exception as error:
            self.fail(error)
        finally:
            put_modes(modes)
            self._own_ns += perf_counter_ns() - started

    def fail(self, error: Exception) -> None:
        """Count an error of the taps; the request goes on."""
        self.failed = True
        self._ledger.failed(Stage.TAP, error)

    @property
    def size(self) -> int:
        """Memory in use, in bytes; copies are counted as float32."""
        return 4 * (self._elements + (0 if self.strip is None else self.strip.elements))

    @property
    def own_ns(self) -> int:
        """Time that observing took."""
        return self._own_ns + (0 if self.strip is None else self.strip.own_ns)

    def finish(self) -> None:
        """Let go of the host's tensors."""
        self._last = None

    @property
    def harvest(self) -> Harvest:
        """What was observed, measured; in the drain, once the call has ended."""
        found = self._harvest
        if found is None:
            energy = self._table.has_clips
            found = Harvest(self.rows, self.strip, self._measure, energy=energy)
            self._harvest = found
        return found

    def release(self) -> None:
        """Give the memory back; readings are void from now on."""
        self._own_ns, self.strip = self.own_ns, None
        self._raw, self._later, self.codes = [], [], []
        self._harvest = None
        shelf, self._shelf = self._shelf, None
        if shelf is not None:
            self._shelves.give(shelf)

    @property
    def _measurer(self) -> Measurer:
        """Made when it is needed: not at all where the native tap can read everything."""
        if self._known is None:
            phase = self._draw / (1 << _DRAW_BITS)
            self._known = Measurer(self._table, self.rows, self._repeat, self._frame, phase)
        return self._known

    def _measure(self) -> list[Reading]:
        """Measure what Python copied, and what was left to the drain."""
        raw, later, shelf = self._raw, self._later, self._shelf
        self._raw, self._later = [], []
        if shelf is None or not (raw or later):
            return []
        with torch.inference_mode():
            found = self._measurer.measure_copies(raw, shelf)
            for one in later:
                found += _observe_later(self, one)
        return found

    def _observe_large(self, point: int, tensor: torch.Tensor) -> None:
        shelf = self._shelf
        if shelf is None:
            return
        version = -1 if tensor.is_inference() else tensor._version
        clips = self._table.clips
        if (
            tensor is self._last
            and 0 <= self._version == version
            and clips[point] == clips[self._raw[-1][0]]
        ):
            self._raw.append((point, None))
            return
        self._last, self._version = tensor, version
        if tensor.requires_grad:
            tensor = tensor.detach()
        reading = self._measurer.measure(point, tensor, shelf)
        self._elements += reading.sample.size
        self._raw.append((point, reading))

    def _keep(self, point: int, tensor: torch.Tensor) -> None:
        """Copy a tensor for which there is no buffer yet, if it can be observed at all."""
        if self._shelf is None or not is_observable(tensor):
            self._last = None
            _keep_codes(self, point, tensor)
            return
        self._raw.append((point, self._shelf.keep(len(self._raw), tensor)))
        self._elements += tensor.numel()


def _keep_codes(recorder: Recorder, point: int, tensor: torch.Tensor) -> None:
    """Copy the codes of a quantized tensor, where its point has a clip range."""
    kind = _unsuitable_kind(tensor)
    if kind:
        recorder.passed = kind
        return
    found = recorder._measurer.codes(point, tensor)
    if found is not None:
        recorder.codes.append(found)
        recorder._elements += found.size // 4


def _observe_later(recorder: Recorder, later: Later) -> list[Reading]:
    """Observe, in the drain, what a request left for it: one of its rows, the others are absent."""
    unit, frame = recorder.unit, recorder._frame
    side = Recorder(
        recorder._table,
        recorder._ledger,
        recorder._shelves,
        rows=1,
        frame=None if frame is None else frame.row(unit),
    )
    found: list[Reading] = []
    try:
        later(side.observe)
        for reading in side.harvest.readings():
            extremes = of_one_row(reading.extremes, unit, recorder.rows)
            found.append(replace(reading, extremes=extremes, sample=reading.sample.copy()))
        recorder.failed = recorder.failed or side.failed
    except Exception as error:
        recorder.fail(error)
    finally:
        side.release()
    return found


def reseed() -> None:
    """Choose other elements than the process that this one was forked from."""
    _random.seed()


def _is_transformed(value: object) -> bool:
    """Whether a tensor stands for others: inside `torch.func` transforms, or nested."""
    return isinstance(value, torch.Tensor) and (
        value.is_nested or torch._C._functorch.is_functorch_wrapped_tensor(value)
    )


def _unsuitable_kind(value: object) -> str:
    """Return the kind of a tensor that has no range which could be observed, else ""."""
    if not isinstance(value, torch.Tensor):
        return ""
    if value.is_complex():
        return "tensors of complex numbers"
    if value.is_nested:
        return "nested tensors"
    return "" if value.layout is torch.strided else "sparse tensors"
