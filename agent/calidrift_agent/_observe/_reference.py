"""An FP32 module that is run beside the served model, on copies of single rows."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from itertools import chain
from random import Random
from typing import Any, Final, final

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from calidrift_agent._observe._chance import DRAWN, ChanceError, ChanceGuard
from calidrift_agent._observe._compare import (
    Comparison,
    ComparisonError,
    compare_outputs,
    first_tensor,
)
from calidrift_agent._observe._guard import SideEffectError, SideEffectGuard
from calidrift_agent._observe._intake import ObservedCall
from calidrift_agent._observe._twin import Twin, TwinError
from calidrift_agent._points import Frame, Point
from calidrift_agent._taps import Ledger, Recorder, copy_rows
from calidrift_agent._vocabulary import DropReason, Stage
from calidrift_agent.errors import AttachError

PATIENCE: Final = 5
"""Failures in a row after which the reference is no longer run."""
_PLAIN: Final = (
    *(torch.Tensor, np.generic, type(None), bool, int, float, complex, str, bytes, Enum),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
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
        self._remarks: dict[str, None] = {}
        self._observes = any(point is not None for point in points)
        self.given_up: str | None = None
        if any(one.training for one in self._twin.module.modules()):
            with suppress(NotImplementedError):  # an exported graph: as it was exported
                self._twin.module.eval()
                self._remark("the reference was given in training mode; its copy is in eval mode")

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

        Cost: one forward of the reference with one row, and 3 us per operation.
        """
        if self.given_up is not None or call.args is None:
            return
        served = first_tensor(call.output)
        if served is None:
            self._remark("the served output holds no floating-point tensor: nothing is compared")
        if served is None and not (self._observes and recorder is not None):
            return
        if not all(map(_is_plain, chain(call.args, call.kwargs.values()))):
            # A cache, say: a second run would change the one that the served model uses.
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
        row = slice(call.unit, call.unit + 1) if call.copied > 1 else slice(None)
        # A copy of its own: the module may write to its inputs, and a capture wants them as sent.
        args, kwargs = copy_rows(call.args or (), call.kwargs, call.copied, row)
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


def _is_plain(value: Any) -> bool:
    """Whether a value is data, or a container of data, so that a second run leaves it alone."""
    if isinstance(value, _PLAIN):
        return True
    if type(value) is dict:
        return all(map(_is_plain, value.values()))
    return isinstance(value, (list, tuple)) and all(map(_is_plain, value))


def _fitted(value: Any, like: torch.Tensor | None) -> Any:
    """Move a tensor to where the reference's weights are; floating-point ones to their type."""
    if not isinstance(value, torch.Tensor) or like is None:
        return value
    if value.is_floating_point():
        return value.to(like.device, like.dtype)
    return value.to(like.device)
