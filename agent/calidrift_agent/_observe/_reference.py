"""An FP32 module that is run beside the served model, on copies of single rows."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from random import Random
from typing import Any, Final, final

import torch
from torch import nn
from torch.utils._pytree import tree_map

from calidrift_agent._observe._chance import DRAWN, ChanceError, ChanceGuard
from calidrift_agent._observe._compare import (
    Comparison,
    ComparisonError,
    compare_outputs,
    copy_row,
    first_tensor,
)
from calidrift_agent._observe._guard import SideEffectError, SideEffectGuard
from calidrift_agent._observe._intake import Batch, ObservedCall
from calidrift_agent._observe._row_check import RowBook, same_output, shape_class, unlike
from calidrift_agent._observe._suitable import is_plain
from calidrift_agent._observe._twin import Twin, TwinError
from calidrift_agent._points import Frame, Point
from calidrift_agent._taps import Ledger, Recorder, copy_rows
from calidrift_agent._vocabulary import DropReason, Stage
from calidrift_agent.errors import AttachError

PATIENCE: Final = 5
"""Failures in a row after which the reference is no longer run."""
_MIXED: Final = (
    "the reference runs on whole batches, since one row of some requests, run alone, gives another "
    "output than among the others (the first dimension of an input holds no independent rows)"
)
_MIXED_POINTS: Final = "the layers of the reference are not observed in these requests"
_STATEFUL: Final = (
    "requests with an input that is neither a tensor nor plain data (a cache, an object) are not "
    "compared: a second run might change what the host goes on with"
)


@final
class ReferenceModel:
    """A copy of an FP32 module: its own modules, attributes and buffers, the same parameters.

    So the module that was given is never touched, whoever else uses it, and no weight is stored
    twice. A run that would draw random numbers or write to a parameter or buffer is refused
    before it does. Used by the drain only.

    Args:
        module: An FP32 version of the served model.
        points: Observation points of the module, which are the first of the point table; None for
            a row that it does not observe.
        seed: Seed of the places at which classes are compared.

    Raises:
        AttachError: The module cannot be copied.

    Attributes:
        given_up: Why it is no longer run; None while it is.
    """

    def __init__(
        self,
        module: nn.Module,
        points: Sequence[Point | None] = (),
        *,
        seed: int | None = None,
    ) -> None:
        self._name = type(module).__name__
        try:
            self._twin = Twin(module, points)
        except TwinError as error:
            raise AttachError(
                f"the reference {self._name} cannot be used: {error}; give one that copy.deepcopy "
                "can copy, without locks, files or generators as attributes"
            ) from error
        self._random = Random(seed).random
        self._failures = 0
        self._book = RowBook()
        self._remarks: dict[str, None] = {}
        self._observes = any(point is not None for point in points)
        self.given_up: str | None = None
        if any(one.training for one in self._twin.module.modules()):
            with suppress(NotImplementedError):  # an exported graph: as it was exported
                self._twin.module.eval()
                self._remark("the reference was given in training mode; its copy is in eval mode")

    def wants_whole(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: int) -> bool:
        """Whether all rows of a request must be copied; asked in the request."""
        return self.given_up is None and self._book.wants_whole(args, kwargs, rows)

    @property
    def observes(self) -> bool:
        """Whether points of its own are observed."""
        return self._observes

    def notes(self) -> tuple[str, ...]:
        """Return sentences for the report: what it does, and what came in the way."""
        if self.given_up is not None:
            return (f"the reference {self._name} is no longer run: {self.given_up}",)
        return (
            f"one row of each observed request also runs through the reference {self._name}, and "
            "the served output (its first floating-point tensor) is compared with the reference's",
            *self._remarks,
        )

    def compare(self, call: ObservedCall, ledger: Ledger, recorder: Recorder | None = None) -> None:
        """Run one row of a call and leave the comparison in it; never raises.

        Args:
            call: The call, with copied inputs and the copied row of its output.
            ledger: Where failures go; they cost this comparison and nothing else.
            recorder: Where the reference's own points are observed; marked as failed where they
                could not be.

        Cost: one forward of the reference with one row, and 3 us per operation. With the whole
        batch where one row alone would be something else, which the first call of a class of
        inputs shows (two forwards more).
        """
        if self.given_up is not None or call.args is None:
            return
        served = first_tensor(call.output)
        if served is None:
            self._remark("the served output holds no floating-point tensor: nothing is compared")
        if served is None and not (self._observes and recorder is not None):
            return
        if not all(map(is_plain, chain(call.args, call.kwargs.values()))):
            # A cache, say: a second run would change the one that the served model uses.
            self._remark(_STATEFUL)
            ledger.dropped(DropReason.STATEFUL_CALL)
            if recorder is not None:
                recorder.failed = True
            return
        try:
            output = self._run(call, recorder)
            if served is not None:
                call.comparison = self._compare(served, output, _frame_of(call))
            self._failures = 0
        except KeyboardInterrupt:  # of the host, where it asks for a report
            raise
        except BaseException as error:  # also a `sys.exit`, which is not for this process
            if recorder is not None:
                recorder.failed = True
            self._failures += 1
            if isinstance(error, ChanceError):  # of the host's: each run would take some
                self.given_up = str(error)
            elif self._failures >= PATIENCE:
                self.given_up = f"it failed {PATIENCE} times in a row, at last with {error!r}"
            ledger.failed(Stage.SHADOW, error)

    def _run(self, call: ObservedCall, recorder: Recorder | None) -> Any:
        """Return the output for one row, from a run with it or with its whole batch."""
        unit = call.unit if call.copied > 1 else 0
        batch = call.batch or Batch(call.args or (), call.kwargs, call.copied, unit)
        if self._stands_alone(batch):
            return self._run_rows(batch, _row_of(batch), recorder)
        self._remark(_MIXED)
        if recorder is not None and self._observes:
            self._remark(_MIXED_POINTS)
            recorder.failed = True
        output = self._run_rows(batch, slice(None), None)
        return copy_row(output, batch.rows, batch.unit)

    def _stands_alone(self, batch: Batch) -> bool:
        """Whether one row alone gives what it gives in its batch; runs both to find out, once."""
        if batch.rows == 1:
            return True
        kind = shape_class(batch.args, batch.kwargs, batch.rows)
        apart = self._book.known(kind)
        if apart is None:
            args, kwargs = unlike(batch.args, batch.kwargs, batch.rows, batch.unit)
            changed = Batch(args, kwargs, batch.rows, batch.unit)
            try:
                output = self._run_rows(changed, slice(None), None)
            except (ChanceError, SideEffectError):
                raise
            except Exception:  # values that it does not take
                output = self._run_rows(batch, slice(None), None)
            try:
                alone = self._run_rows(batch, _row_of(batch), None)
            except (ChanceError, SideEffectError):
                raise
            except Exception:  # fewer rows than it wants
                alone = None
            apart = same_output(copy_row(output, batch.rows, batch.unit), first_tensor(alone))
            self._book.note(kind, apart=apart)
        return apart

    def _run_rows(self, batch: Batch, rows: slice, recorder: Recorder | None) -> Any:
        # A copy of its own: the module may write to its inputs, and a capture wants them as sent.
        args, kwargs = copy_rows(batch.args, batch.kwargs, batch.rows, rows)
        if not args and not self._takes(kwargs):
            args, kwargs = tuple(kwargs.values()), {}
        like = next(filter(torch.is_floating_point, self._state()), None)
        fit = partial(_fitted, like=like)
        # Not inference mode: there, operations arrive whole, with what they draw inside.
        guard, chance = SideEffectGuard(self._state()), ChanceGuard()
        with torch.no_grad(), guard, chance:
            output = self._twin.run(tree_map(fit, args), tree_map(fit, kwargs), recorder)
        if chance.drew or chance.refused is not None:
            raise ChanceError(chance.refused or DRAWN)
        if guard.refused is not None:  # and the module caught the error
            raise SideEffectError(guard.refused)
        return output

    def _takes(self, kwargs: Mapping[str, Any]) -> bool:
        """Whether inputs have names of the module; a session's may have others: order counts."""
        try:
            inspect.signature(self._twin.module.forward).bind(**kwargs)
        except TypeError:
            return False
        return True

    def _compare(self, served: torch.Tensor, output: Any, frame: Frame | None) -> Comparison:
        found = first_tensor(output)
        if found is None:
            raise ComparisonError("the reference's output holds no floating-point tensor")
        if frame is not None and served.shape == found.shape:
            served, found = _real(served, frame), _real(found, frame)
        comparison = compare_outputs(served, found, position=self._random())
        if comparison.agreed is None:
            self._remark("the output has no classes (its last dimension is 1): no agreement")
        else:
            self._remark("the same most likely class means: the same in the last dimension")
        return comparison

    def _state(self) -> Iterator[torch.Tensor]:
        return chain(self._twin.module.parameters(), self._twin.module.buffers())

    def _remark(self, sentence: str) -> None:
        self._remarks[sentence] = None


def _row_of(batch: Batch) -> slice:
    return slice(batch.unit, batch.unit + 1)


def _frame_of(call: ObservedCall) -> Frame | None:
    """Return the frame of the row that stands for a call."""
    frame = call.frame
    return frame if frame is None or frame.rows == 1 else frame.row(call.unit)


def _real(output: torch.Tensor, frame: Frame) -> torch.Tensor:
    """Return an output of one row without its padded positions, where it has positions."""
    mask = frame.masks.get(output.shape[1]) if output.dim() > 2 else None
    if mask is None or output.shape[0] != 1 or not mask.any():
        return output
    return output[:, torch.from_numpy(mask[0]).to(output.device)]


def _fitted(value: Any, like: torch.Tensor | None) -> Any:
    """Move a tensor to where the reference's weights are; floating-point ones to their type."""
    if not isinstance(value, torch.Tensor) or like is None:
        return value
    if value.is_floating_point():
        return value.to(like.device, like.dtype)
    return value.to(like.device)
