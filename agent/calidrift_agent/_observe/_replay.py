"""The inputs of a shadow pass: one row of a request, in a batch that the model accepts."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, final

from calidrift_agent._observe._guard import SideEffectError
from calidrift_agent._observe._intake import ObservedCall
from calidrift_agent._taps import copy_rows, repeat_row
from calidrift_agent.errors import CalidriftError

WHOLE_BATCH: Final = -1
"""The model accepts nothing but whole batches."""
UNKNOWN: Final = 0
"""Not tried yet."""

Run = Callable[[tuple[Any, ...], Mapping[str, Any]], object]
"""Runs the model on some inputs."""


class ShadowError(CalidriftError, RuntimeError):
    """A shadow pass could not be made; counted, never raised into a request."""


@final
class RowReplay:
    """Finds out which batch a model accepts, and makes such batches of copied requests.

    An exported graph may refuse a batch of one, and a forward may be written for one size. The
    first request (copied whole) shows which batch is accepted: one row, the row repeated, or
    nothing but the whole batch.

    Attributes:
        batch: Copies of one row that make an accepted batch, `WHOLE_BATCH`, or `UNKNOWN`.
    """

    __slots__ = ("batch",)

    def __init__(self) -> None:
        self.batch = UNKNOWN

    def find(self, call: ObservedCall, run: Run, allowed: Collection[int] = ()) -> None:
        """Try batches until one is accepted.

        Args:
            call: A request, copied whole.
            run: Runs the model; raises for a batch that it does not accept.
            allowed: Batch sizes that are known to be fixed; empty where none is.

        Raises:
            ShadowError: No batch is accepted.
            SideEffectError: The model was about to change the host's state.
        """
        args, kwargs = call.args or (), call.kwargs
        row = slice(call.unit, call.unit + 1) if call.copied > 1 else slice(None)
        one, one_by_name = copy_rows(args, kwargs, call.copied, row)
        failure: Exception | None = None
        for times in _candidates(call.copied):
            if allowed and times not in allowed:
                continue
            try:
                run(*repeat_row(one, one_by_name, times))
            except SideEffectError:
                raise
            except Exception as error:
                failure = error
                continue
            # As large as the batch itself: then its other rows cost nothing.
            self.batch = WHOLE_BATCH if times == call.copied > 1 else times
            return
        raise ShadowError(
            f"the model accepts neither one row nor {call.copied} copies of it ({failure!r})"
        ) from failure

    def inputs(self, call: ObservedCall) -> tuple[tuple[Any, ...], Mapping[str, Any], int]:
        """Return the inputs of a pass, and how often they hold the row; `call.copied` rows count.

        The call then stands for its copied rows only.

        Raises:
            ShadowError: Too little was copied.
        """
        args, kwargs = call.args or (), call.kwargs
        if self.batch == WHOLE_BATCH:
            if call.copied != call.rows:
                raise ShadowError("one row was copied, but the model accepts whole batches only")
            return args, kwargs, 1
        args, kwargs = one_row(call)
        if self.batch > 1:
            args, kwargs = repeat_row(args, kwargs, self.batch)
        return args, kwargs, self.batch


def one_row(call: ObservedCall) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Let a call stand for one row only, the one chosen for it, and return its inputs."""
    if call.copied != 1:
        row = slice(call.unit, call.unit + 1)
        call.args, call.kwargs = copy_rows(call.args or (), call.kwargs, call.copied, row)
        call.copied = 1
    call.narrow()
    return call.args or (), call.kwargs


def _candidates(rows: int) -> list[int]:
    """Batch sizes to try, cheapest first; the size of the batch itself is the last."""
    return [*(size for size in (1, 2, 3, 4, 8, 16, 32, 64, 128, 256) if size < rows), rows]
