"""Shadow passes of modules that serve compiled: a copy of them runs eagerly, on one row."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final, final

import torch
from torch import nn

from calidrift_agent._observe._autocast import autocast_as
from calidrift_agent._observe._chance import DRAWN
from calidrift_agent._observe._edges import EdgeShadow
from calidrift_agent._observe._intake import ObservedCall
from calidrift_agent._observe._outlook import Outlook
from calidrift_agent._observe._probe import why_not_twice
from calidrift_agent._observe._replay import RowReplay, ShadowError
from calidrift_agent._observe._suitable import is_plain
from calidrift_agent._observe._twin import Twin, TwinError
from calidrift_agent._points import Frame, Point
from calidrift_agent._taps import Ledger, PointTable, Recorder, ShelfPool, copy_rows
from calidrift_agent._vocabulary import DropReason

_LONGEST_WAIT: Final = 4096
"""Calls between two attempts to observe a model that changes itself, at most."""


@final
class ModuleShadow:
    """Replays one row through a copy of a module tree, and watches its layers there.

    The copy shares the parameters and nothing else, so a pass cannot change what is served. Before
    its first pass, and again whenever the served modules were changed, it is run once under guard;
    where that shows that a second run would change something or draw random numbers, only inputs
    and output of the requests are observed, until the model changes; for good where numbers could
    not be refused before they were drawn.

    Args:
        live: The module tree that serves, as eager modules.
        points: Its points, in the first rows of the table.
        edges: Observes inputs and output, in the rows after these; None for not at all.
        table: Points and bounds.
        ledger: Where errors of taps go.
        outlook: Where the report reads what was found out.
    """

    def __init__(
        self,
        live: nn.Module,
        points: Sequence[Point],
        edges: EdgeShadow | None,
        table: PointTable,
        ledger: Ledger,
        outlook: Outlook,
    ) -> None:
        self._live = live
        self._points = points
        self._edges = edges
        self._table = table
        self._ledger = ledger
        self._outlook = outlook
        self._shelves = ShelfPool()
        self._twin: Twin | None = None
        self._replay = RowReplay()
        self._refused = False
        self._for_good = False
        self._wait = 0
        self._next_wait = 1

    @property
    def remarks(self) -> tuple[str, ...]:
        """See `Shadow`."""
        return self._replay.remarks

    def wants_whole(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: int) -> bool:
        """See `Shadow`."""
        if self._refused and (self._for_good or self._wait > 1):
            return False
        return self._replay.wants_whole(args, kwargs, rows)

    @property
    def copy_bytes(self) -> int:
        """See `CopyKeeper`."""
        return self._shelves.size + (0 if self._edges is None else self._edges.copy_bytes)

    def verify(self) -> None:
        """Let go of a copy that is out of date: it holds weights that the host gave up."""
        if self._twin is not None and not self._twin.is_current():
            self._twin = None

    def run(self, call: ObservedCall) -> None:
        """See `Shadow`. Cost: one eager pass with one row."""
        if call.args is None:
            return
        plain = all(map(is_plain, chain(call.args, call.kwargs.values())))
        if not plain and not self._refused:
            # A cache, say: a second run would change the one that the served model uses.
            self._ledger.dropped(DropReason.STATEFUL_CALL)
            return
        # No inference mode: what a forward keeps for later (a table of angles in a global cache)
        # would be an inference tensor, at which compiled code of the host compiles again.
        with torch.no_grad(), autocast_as(call.autocast):
            twin = self._ready(call) if plain else None
            if twin is not None:
                self._observe(call, twin)
            elif self._edges is not None:
                self._edges.run(call)
            else:
                self._ledger.dropped(DropReason.STATEFUL_CALL)

    def _observe(self, call: ObservedCall, twin: Twin) -> None:
        before, self._twin = twin.versions(), None
        self._replay.check(call, self._recorder, twin.run, twin.run)
        args, kwargs, repeat = self._replay.inputs(call)
        # A copy of its own: the forward may write to its inputs, and a capture wants them as sent.
        args, kwargs = copy_rows(args, kwargs, call.copied, slice(None))
        recorder = self._recorder(rows=call.copied, repeat=repeat, frame=call.frame)
        call.ranges = recorder
        if self._table.has_clips:
            call.clips = recorder
        twin.run(args, kwargs, recorder)
        recorder.finish()
        if twin.versions() == before:  # else somebody wrote, maybe this pass: look into it again
            self._twin = twin

    def _recorder(self, *, rows: int, repeat: int = 1, frame: Frame | None = None) -> Recorder:
        return Recorder(
            self._table, self._ledger, self._shelves, rows=rows, repeat=repeat, frame=frame
        )

    def _ready(self, call: ObservedCall) -> Twin | None:
        """Return a copy that may be run; None where only inputs and output can be observed."""
        twin = self._twin
        if twin is not None and twin.is_current():
            twin.follow()
            return twin
        self._twin = None
        self._wait -= 1
        if self._refused and (self._for_good or self._wait > 0):
            return None
        if self._refused and call.copied < call.rows:
            return None  # whether one row says anything must be found out first, on a whole batch
        try:
            twin = Twin(self._live, self._points)
            why = self._probe(twin, call)
        except TwinError as error:
            why = str(error)
        if why is not None or twin is None:
            self._refuse(why or "")
            return None
        self._refused, self._next_wait, self._twin = False, 1, twin
        self._outlook.open()
        return twin

    def _probe(self, twin: Twin, call: ObservedCall) -> str | None:
        replay = RowReplay()

        def attempt() -> None:
            replay.find(call, lambda args, kwargs: twin.run(args, kwargs, None))

        try:
            why = why_not_twice(self._live, twin, attempt)
        except ShadowError as error:
            return str(error)
        if call.copied < call.rows:
            replay.book = self._replay.book
        self._replay = replay
        return why

    def _refuse(self, why: str) -> None:
        self._refused = True
        self._replay.book.forget()
        # Each look would draw again: numbers that another thread wants at the same moment.
        self._for_good = why == DRAWN
        self._wait, self._next_wait = self._next_wait, min(2 * self._next_wait, _LONGEST_WAIT)
        self._outlook.close(why)
