"""From an observed call to the rows that may be kept."""

from __future__ import annotations

from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from calidrift_agent._capture import CaptureRow, CaptureWriter
from calidrift_agent._observe import ObservedCall
from calidrift_agent._taps import Ledger, RowMaxima, named_tensors
from calidrift_agent._vocabulary import DropReason
from calidrift_agent._watch._allowed import AllowedInputs

_UNKNOWN_TYPE: Final = (
    "calls with quantized tensors, or others of a type that numpy does not know (float8), were not "
    "captured: give CaptureOptions(inputs=...) without them"
)


@final
class CaptureDesk:
    """Offers the rows of observed calls to a capture writer.

    Args:
        points: Number of points.
        ledger: Where drops go.
        allowed: Which inputs may be kept; None for all of them.
    """

    def __init__(self, points: int, ledger: Ledger, allowed: AllowedInputs | None = None) -> None:
        self._points = points
        self._allowed = allowed
        self._ledger = ledger
        # Sentences for the report.
        self.remarks: dict[str, None] = {}

    def offer(
        self, call: ObservedCall, found: RowMaxima, ratio: float, writer: CaptureWriter
    ) -> None:
        """Offer each row of a call.

        Args:
            call: The call, with its inputs.
            found: Maxima of its rows.
            ratio: Probability with which a row of it was observed.
            writer: Keeps some of them.

        Raises:
            OSError: A file could not be written for another reason than lack of space.
        """
        if call.args is None:
            return
        allowed = self._allowed
        if allowed is None:
            tensors = named_tensors(call.args, call.kwargs)
        else:
            tensors = allowed.choose(call.args, call.kwargs, call.time_ns)
        bfloat16 = tuple(name for name, tensor in tensors.items() if tensor.dtype is torch.bfloat16)
        try:
            arrays = {name: _array(tensor) for name, tensor in tensors.items()}
        except (RuntimeError, TypeError):  # numbers that numpy has no type for
            self.remarks[_UNKNOWN_TYPE] = None
            self._ledger.dropped(DropReason.UNSUITABLE_INPUT)
            return
        for row in range(call.rows):
            maxima = np.full(self._points, np.nan, np.float32)
            maxima[found.points] = found.absmax[:, row]
            reason = writer.offer(
                CaptureRow(
                    inputs={name: _row(array, row, call.copied) for name, array in arrays.items()},
                    maxima=maxima,
                    uncovered=bool(found.exceeding[row]),
                    time_ns=call.time_ns,
                    segment=call.context.segment or "",
                    session=call.context.session or "",
                    inclusion=ratio,
                    row=row,
                    bfloat16=bfloat16,
                )
            )
            if reason is not None:
                self._ledger.dropped(reason)


def _array(tensor: torch.Tensor) -> NDArray[np.generic[Any]]:
    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    array: NDArray[np.generic[Any]] = tensor.numpy()
    return array


def _row(array: NDArray[np.generic[Any]], row: int, rows: int) -> NDArray[np.generic[Any]]:
    """One row, still as a batch of one, as the model takes it."""
    if array.ndim and array.shape[0] == rows:
        return array[row : row + 1]
    return array
