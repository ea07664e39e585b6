"""Calls that nobody can see: compiled code has taken the model's own code in."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final, final

from calidrift_agent._taps import Ledger
from calidrift_agent._vocabulary import Stage
from calidrift_agent.errors import CalidriftError

TAKEN_IN: Final = (
    "torch.compile has taken the model's code into other compiled code: calls from there pass the "
    "watch unseen, and that code is compiled anew after watch() and after close(); call watch() "
    "on what was compiled"
)
"""Sentence for the report and the log."""


class UnseenCallsError(CalidriftError, RuntimeError):
    """Calls of the model cannot be seen where it is watched."""


@final
class TakenIn:
    """Told by the gate, in the middle of compiling; says it once in the log and the error counter.

    Args:
        ledger: Where it is counted, as an error of the drain: there may never be a request.
        wake: Has the drain come. It may not run yet, for want of a call that would start it.

    Attributes:
        happened: Whether it was told.
    """

    __slots__ = ("_ledger", "_said", "_wake", "happened")

    def __init__(self, ledger: Ledger, wake: Callable[[], None]) -> None:
        self._ledger = ledger
        self._wake = wake
        self._said = False
        self.happened = False

    def __call__(self) -> None:
        """Take note; from any thread, never raises."""
        self.happened = True
        with suppress(Exception):
            self._wake()

    def say(self) -> None:
        """Count and log it, if it happened and was not said yet; from the drain."""
        if self.happened and not self._said:
            self._said = True
            self._ledger.failed(Stage.DRAIN, UnseenCallsError(TAKEN_IN))
