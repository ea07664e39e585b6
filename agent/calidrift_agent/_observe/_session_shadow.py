"""Shadow passes of an ONNX Runtime session: on a second session, in which points can be read."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import torch

from calidrift_agent._observe._intake import ObservedCall
from calidrift_agent._observe._replay import UNKNOWN, WHOLE_BATCH, RowReplay, ShadowError
from calidrift_agent._onnx import Blueprint, Replica
from calidrift_agent._points import Frame
from calidrift_agent._taps import Ledger, PointTable, Reading, Recorder, ShelfPool

_MASK: Final = "attention_mask"


@final
class SessionShadow:
    """Replays one row of a request, or the whole batch where the model takes no single row.

    One pass serves both instruments: the replayed graph holds the served one and, where that is
    quantized, another without its activation quantizers.

    Args:
        blueprint: The graph to be replayed.
        table: Points and bounds.
        ledger: Where errors of taps go.
        fixed: Batch sizes that the inputs of the model ask for; empty where they ask for none.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        table: PointTable,
        ledger: Ledger,
        fixed: frozenset[int] = frozenset(),
    ) -> None:
        self._blueprint = blueprint
        self._table = table
        self._ledger = ledger
        self._fixed = fixed
        # Padding is left out of tensors, not of what was reduced already.
        masked = any(info.name == _MASK for info in blueprint.inputs)
        self._replica = Replica(blueprint, whole=masked)
        # What is reduced in the graph is reduced by rows, which such batches do not have.
        self._batches = Replica(blueprint, whole=True)
        self._replay = RowReplay()
        self._shelves = ShelfPool()

    @property
    def batch(self) -> int:
        """Copies of one row that make an accepted batch, `WHOLE_BATCH`, or `UNKNOWN`."""
        return self._replay.batch

    @property
    def remarks(self) -> tuple[str, ...]:
        """See `Shadow`."""
        return self._replay.remarks

    def wants_whole(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: int) -> bool:
        """See `Shadow`."""
        return self._replay.wants_whole(args, kwargs, rows)

    @property
    def copy_bytes(self) -> int:
        """See `CopyKeeper`."""
        return self._shelves.size

    def run(self, call: ObservedCall) -> None:
        """See `Shadow`. Cost: one pass over the float graph (two where it is quantized)."""
        if call.args is None:
            return
        if self._replay.batch == UNKNOWN:
            self._replay.find(call, self._try, self._fixed or {1, call.copied})
        self._replay.check(call, self._recorder, self._look_at_batch, self._look)
        mixed = self._replay.batch != WHOLE_BATCH and self._replay.takes_whole(call)
        _, kwargs, _ = self._replay.inputs(call)
        replica = self._batches if mixed else self._replica
        seen = replica.run(_feeds(kwargs), call.copied)
        blueprint = self._blueprint
        call.ranges = self._record(seen, blueprint.ranges, call)
        if blueprint.clips != blueprint.ranges:
            call.clips = self._record(seen, blueprint.clips, call)
        elif self._table.has_clips:
            call.clips = call.ranges

    def _try(self, _: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise unless the model accepts a batch."""
        feeds = _feeds(kwargs)
        rows = next((value.shape[0] for value in feeds.values() if value.ndim), 1)
        refusal = self._replica.refuses(feeds, rows)
        if refusal is not None:
            raise ShadowError("the replayed model refuses this batch") from refusal

    def _record(
        self, seen: Sequence[torch.Tensor | Reading], taps: Sequence[int], call: ObservedCall
    ) -> Recorder:
        recorder = self._recorder(rows=call.copied, frame=call.frame)
        _fill(recorder, seen, taps)
        return recorder

    def _recorder(self, *, rows: int, repeat: int = 1, frame: Frame | None = None) -> Recorder:
        return Recorder(
            self._table, self._ledger, self._shelves, rows=rows, repeat=repeat, frame=frame
        )

    def _look(self, _: tuple[Any, ...], kwargs: Mapping[str, Any], recorder: Recorder) -> None:
        seen = self._replica.run(_feeds(kwargs), recorder.rows)
        _fill(recorder, seen, self._blueprint.ranges)

    def _look_at_batch(
        self, _: tuple[Any, ...], kwargs: Mapping[str, Any], recorder: Recorder
    ) -> None:
        seen = self._batches.run(_feeds(kwargs), recorder.rows)
        _fill(recorder, seen, self._blueprint.ranges)


def _fill(recorder: Recorder, seen: Sequence[torch.Tensor | Reading], taps: Sequence[int]) -> None:
    with torch.inference_mode():
        for point, number in enumerate(taps):
            value = seen[number]
            if isinstance(value, Reading):
                recorder.add(point, value)
            else:
                recorder.observe(point, value)
        recorder.finish()


def _feeds(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.numpy() for name, value in kwargs.items()}
