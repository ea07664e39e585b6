"""Waiting a moment for a database that another process holds."""

from collections.abc import Callable
from typing import Final, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

from calidrift_analyzer.errors import StoreBusyError

__all__ = ["COMMAND_PATIENCE", "while_busy"]

COMMAND_PATIENCE: Final = 2.0
"""Seconds that a command waits for another one, which mostly holds the database for less."""
_PAUSE_SECONDS: Final = (0.05, 0.15)
_T = TypeVar("_T")


def while_busy(work: Callable[[], _T], patience: float) -> _T:
    """Do something again and again as long as another process holds the database.

    Args:
        work: What to do.
        patience: For how many seconds to try; 0 for once.

    Raises:
        StoreBusyError: It is still held.
    """
    again = Retrying(
        retry=retry_if_exception_type(StoreBusyError),
        stop=stop_after_delay(patience),
        wait=wait_random(*_PAUSE_SECONDS),  # two that wait must not meet each time
        reraise=True,
    )
    return again(work)
