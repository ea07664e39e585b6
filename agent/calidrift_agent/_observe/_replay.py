"""The inputs of a shadow pass: one row of a request, in a batch that the model accepts."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Protocol, final

from calidrift_agent._observe._compare import copy_row
from calidrift_agent._observe._guard import SideEffectError
from calidrift_agent._observe._intake import Batch, ObservedCall
from calidrift_agent._observe._row_check import (
    RowBook,
    Sight,
    same_output,
    same_sight,
    shape_class,
    sight_of,
    unlike,
)
from calidrift_agent._points import Frame
from calidrift_agent._taps import Recorder, copy_rows, repeat_row
from calidrift_agent.errors import CalidriftError

WHOLE_BATCH: Final = -1
"""The model accepts nothing but whole batches."""
UNKNOWN: Final = 0
"""Not tried yet."""

MIXED: Final = (
    "one row of some requests, run alone, is not what it is among the others (the first dimension "
    "of an input holds no independent rows: time comes first, say, or it is a bias that all rows "
    "share): such requests are copied and replayed whole"
)
"""Remark about requests of which one row says nothing."""
Run = Callable[[tuple[Any, ...], Mapping[str, Any]], object]
"""Runs the model on some inputs."""
Look = Callable[[tuple[Any, ...], Mapping[str, Any], Recorder], object]
"""Makes a pass with inputs of its own, for nothing but a look; returns the output, or None."""


class Recorders(Protocol):
    """Makes recorders for such passes."""

    def __call__(self, *, rows: int, repeat: int = 1, frame: Frame | None = None) -> Recorder:
        """Return a recorder."""


class ShadowError(CalidriftError, RuntimeError):
    """A shadow pass could not be made; counted, never raised into a request."""


@final
class RowReplay:
    """Finds out which batch a model accepts, and makes such batches of copied requests.

    An exported graph may refuse a batch of one, and a forward may be written for one size. The
    first request (copied whole) shows which batch is accepted: one row, the row repeated, or
    nothing but the whole batch. The first request of each class of inputs shows whether a row
    says by itself what it says in its batch; where it does not, the batch is replayed.

    Attributes:
        batch: Copies of one row that make an accepted batch, `WHOLE_BATCH`, or `UNKNOWN`.
        book: What is known of the classes.
    """

    __slots__ = ("batch", "book")

    def __init__(self) -> None:
        self.batch = UNKNOWN
        self.book = RowBook()

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences for the report."""
        return (MIXED,) if self.book.mixed else ()

    def wants_whole(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: int) -> bool:
        """Whether all rows of a request must be copied; asked in the request."""
        return self.batch in (UNKNOWN, WHOLE_BATCH) or self.book.wants_whole(args, kwargs, rows)

    def takes_whole(self, call: ObservedCall) -> bool:
        """Whether the whole batch of a call is replayed, once `check` has seen it."""
        if self.batch == WHOLE_BATCH:
            return True
        return call.copied > 1 and self.book.wants_whole(call.args or (), call.kwargs, call.copied)

    def check(self, call: ObservedCall, recorders: Recorders, whole: Look, row: Look) -> None:
        """Find out whether one row of a call says by itself what it says in its batch.

        Only for the first call of its class: the whole batch is run with taps, and one row. In
        the drain. Cost: two passes.

        Args:
            call: A request.
            recorders: Makes recorders, whose readings go nowhere.
            whole: Makes a pass with a whole batch.
            row: Makes a pass with a batch as it is made of one row.

        Raises:
            Exception: The whole batch cannot be run.
        """
        rows, unit = call.copied, call.unit
        if self.batch == WHOLE_BATCH or call.args is None or not 1 < rows == call.rows:
            return
        kind = shape_class(call.args, call.kwargs, rows)
        if self.book.known(kind) is not None:
            return

        def batch(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Sight, object]:
            # Copies, since the model may write to them. With padding: of one row alone, it would
            # be left out of tensors, too, that all rows share.
            args, kwargs = copy_rows(args, kwargs, rows, slice(None))
            frame = None if call.frame is None else call.frame.unmasked()
            recorder = recorders(rows=rows, frame=frame)
            return _looked(whole, args, kwargs, recorder, unit)

        try:
            of_batch, output = batch(*unlike(call.args, call.kwargs, rows, unit))
        except SideEffectError:
            raise
        except Exception:  # values that this model does not take
            of_batch, output = batch(call.args, call.kwargs)
        one = copy_rows(call.args, call.kwargs, rows, slice(unit, unit + 1))
        recorder = recorders(rows=1, repeat=self.batch)
        try:
            of_row, alone = _looked(row, *repeat_row(*one, self.batch), recorder, 0)
        except SideEffectError:
            raise
        except Exception:  # fewer rows than it wants
            self.book.note(kind, apart=False)
            return
        apart = same_sight(of_batch, of_row, rows)
        if apart and not len(of_batch):
            apart = same_output(copy_row(output, rows, unit), copy_row(alone, self.batch, 0))
        self.book.note(kind, apart=apart)

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
        if self.takes_whole(call):
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
        call.batch = Batch(call.args or (), call.kwargs, call.copied, call.unit)
        row = slice(call.unit, call.unit + 1)
        call.args, call.kwargs = copy_rows(call.args or (), call.kwargs, call.copied, row)
        call.copied = 1
    call.narrow()
    return call.args or (), call.kwargs


def _looked(
    look: Look,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    recorder: Recorder,
    unit: int,
) -> tuple[Sight, object]:
    try:
        output = look(args, kwargs, recorder)
        recorder.finish()
        return sight_of(recorder, unit), output
    finally:
        recorder.release()


def _candidates(rows: int) -> list[int]:
    """Batch sizes to try, cheapest first; the size of the batch itself is the last."""
    return [*(size for size in (1, 2, 3, 4, 8, 16, 32, 64, 128, 256) if size < rows), rows]
