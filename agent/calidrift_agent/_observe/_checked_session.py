"""Whether a session serves the model that its file holds: a file may have been replaced since."""

from collections.abc import Callable, Mapping
from typing import Any, Final, final

import torch

from calidrift_agent._observe._compare import ComparisonError, compare_outputs, copy_row
from calidrift_agent._observe._intake import ObservedCall
from calidrift_agent._observe._outlook import Outlook
from calidrift_agent._observe._replay import ShadowError
from calidrift_agent._observe._shadow import Shadow
from calidrift_agent._onnx import Blueprint, Replica

FLOAT_NOISE: Final = 0.01
"""Noise ÷ signal from which on an output is another model's: half precision and another order of
summation stay below a thousandth of it, a model that was trained again does not."""
QUANTIZED_NOISE: Final = 0.5
"""The same where integer kernels serve: they round otherwise, and some processors saturate."""
_ATTEMPTS: Final = 16
"""Calls without an output that can be compared, after which no more are tried."""
WHY: Final = (
    "the session answers otherwise than the model in its file, which was probably replaced after "
    "the session was made; make the session anew and watch that one, or make it from bytes"
)


@final
class CheckedSession:
    """Hands calls on to another shadow as soon as one has shown that the file is what serves.

    A session does not give back its model, so what is replayed is read from its path. Until a
    replay of the whole graph has given an answer that was served, a call with another answer is
    an error, and nothing is recorded of it.

    Args:
        shadow: Replays the calls.
        whole: Returns the graph of the file with its outputs as taps; None where it cannot be run
            on what is copied of a call.
        outlook: Where the report reads what was found out.
        noise: Noise ÷ signal from which on an output is another model's.
    """

    def __init__(
        self,
        shadow: Shadow,
        whole: Callable[[], Blueprint | None],
        outlook: Outlook,
        noise: float,
    ) -> None:
        self._shadow = shadow
        # Kept until the answer is known, and with it the weights of the file.
        self._whole: Callable[[], Blueprint | None] | None = whole
        self._replica: Replica | None = None
        self._outlook = outlook
        self._noise = noise
        self._attempts = 0

    @property
    def remarks(self) -> tuple[str, ...]:
        """See `Shadow`."""
        return self._shadow.remarks

    def wants_whole(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: int) -> bool:
        """See `Shadow`; the whole batch is asked for until the answer is known."""
        return self._whole is not None or self._shadow.wants_whole(args, kwargs, rows)

    @property
    def copy_bytes(self) -> int:
        """See `CopyKeeper`."""
        return self._shadow.copy_bytes

    def run(self, call: ObservedCall) -> None:
        """See `Shadow`. Cost: that of the other; at first one pass over the whole batch more.

        Raises:
            ShadowError: The file holds another model.
        """
        if self._whole is not None and call.args is not None and call.copied == call.rows:
            self._check(call, self._whole)
        self._shadow.run(call)

    def _check(self, call: ObservedCall, whole: Callable[[], Blueprint | None]) -> None:
        served = None if call.output is None else call.output.to(torch.float64)
        noise = None if served is None else self._replayed(call, served, whole)
        if noise is None:
            self._attempts += 1
            if self._attempts >= _ATTEMPTS:
                self._settle()
        elif noise < self._noise:
            self._outlook.open()
            self._settle()
        else:
            self._outlook.close(WHY)
            raise ShadowError(WHY)

    def _settle(self) -> None:
        self._whole = self._replica = None

    def _replayed(
        self, call: ObservedCall, served: torch.Tensor, whole: Callable[[], Blueprint | None]
    ) -> float | None:
        """Noise of the served output beside the nearest one of the file; None: not comparable."""
        try:
            if self._replica is None:
                blueprint = whole()
                if blueprint is None:
                    self._attempts = _ATTEMPTS
                    return None
                self._replica = Replica(blueprint, whole=True)
            feeds = {name: value.numpy() for name, value in call.kwargs.items()}
            outputs = self._replica.run(feeds, call.rows)
        except Exception:  # it cannot be run here: then neither can the shadow, which counts it
            return None
        found = [_noise(served, copy_row(one, call.rows, call.unit)) for one in outputs]
        return min((one for one in found if one is not None), default=None)


def _noise(served: torch.Tensor, replayed: torch.Tensor | None) -> float | None:
    if replayed is None or replayed.shape != served.shape:
        return None
    try:
        return compare_outputs(served, replayed.to(torch.float64)).noise
    except ComparisonError:
        return None
