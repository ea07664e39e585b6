"""Shadow passes of INT8 models made of modules: what is clipped in them, and nothing else."""

from collections.abc import Mapping
from itertools import chain
from typing import Any, final

import torch

from calidrift_agent._observe._guard import SideEffectError, SideEffectGuard
from calidrift_agent._observe._intake import ObservedCall
from calidrift_agent._observe._module_shadow import ModuleShadow
from calidrift_agent._observe._outlook import Outlook
from calidrift_agent._observe._replay import UNKNOWN, RowReplay
from calidrift_agent._points import CodeGraph, Frame
from calidrift_agent._taps import Ledger, PointTable, Recorder, ShelfPool


@final
class CodeShadow:
    """Replays one row through a graph whose operations work on codes.

    Such an operation cannot leave its quantizer out, so there is one pass, and it measures with
    the clip instrument only; ranges need a reference model. The first pass is guarded: where it is
    about to draw random numbers or to write to a buffer, the graph is not run again.

    Args:
        graph: The graph.
        table: Points and bounds, in the order of the graph's quantizers.
        ledger: Where errors of taps go.
        outlook: Where the report reads what was found out.
    """

    def __init__(
        self, graph: CodeGraph, table: PointTable, ledger: Ledger, outlook: Outlook
    ) -> None:
        self._outlook = outlook
        self._refused = False
        self._graph = graph
        self._table = table
        self._ledger = ledger
        self._shelves = ShelfPool()
        self._replay = RowReplay()

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
        """See `Shadow`. Cost: one interpreted pass over the graph with one row."""
        if call.args is None or self._refused or not self._is_known(call):
            return
        with torch.inference_mode():
            self._replay.check(call, self._recorder, self._look, self._look)
            args, kwargs, repeat = self._replay.inputs(call)
            recorder = self._recorder(rows=call.copied, repeat=repeat, frame=call.frame)
            call.clips = recorder
            self._graph.run(args, kwargs, observe=recorder.observe)
            recorder.finish()

    def _is_known(self, call: ObservedCall) -> bool:
        """Whether it is known which batch the graph accepts, and that running it does no harm."""
        if self._replay.batch != UNKNOWN:
            return True
        module = self._graph.graph_module
        state = chain(module.parameters(), module.buffers())
        try:
            # Not inference mode: there, operations arrive whole, with what they draw inside.
            with torch.no_grad(), SideEffectGuard(state):
                self._replay.find(call, self._try, frozenset())
        except SideEffectError as error:
            self._refused = True
            self._outlook.close(str(error))
        return not self._refused

    def _recorder(self, *, rows: int, repeat: int = 1, frame: Frame | None = None) -> Recorder:
        return Recorder(
            self._table, self._ledger, self._shelves, rows=rows, repeat=repeat, frame=frame
        )

    def _look(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], recorder: Recorder) -> object:
        def observe(index: int, value: torch.Tensor) -> None:
            recorder.observe(index, value.dequantize() if value.is_quantized else value)

        return self._graph.run(args, kwargs, observe=observe)

    def _try(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._graph.run(args, kwargs, observe=_ignore)


@final
class ClipShadow:
    """A shadow pass of modules whose figures belong to the clip instrument alone.

    Args:
        modules: Makes the pass.
    """

    def __init__(self, modules: ModuleShadow) -> None:
        self._modules = modules

    @property
    def remarks(self) -> tuple[str, ...]:
        """See `Shadow`."""
        return self._modules.remarks

    def wants_whole(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: int) -> bool:
        """See `Shadow`."""
        return self._modules.wants_whole(args, kwargs, rows)

    @property
    def copy_bytes(self) -> int:
        """See `CopyKeeper`."""
        return self._modules.copy_bytes

    def verify(self) -> None:
        """See `ModuleShadow`."""
        self._modules.verify()

    def run(self, call: ObservedCall) -> None:
        """See `Shadow`."""
        self._modules.run(call)
        call.ranges, call.clips = None, call.ranges


def _ignore(index: int, value: torch.Tensor) -> None:
    """Observe nothing."""
