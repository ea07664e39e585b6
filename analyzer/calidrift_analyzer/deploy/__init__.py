"""Tells other deployment systems of promotions and rollbacks: a command, or a signed webhook.

Moves wait in an outbox in the store, written together with the move itself. Each is told at least
once, always under the same key; a newer one takes the place of an older one that still waits.
"""

from calidrift_analyzer.deploy._courier import Courier
from calidrift_analyzer.deploy._hook import check_hook
from calidrift_analyzer.deploy._outbox import (
    FileDatabase,
    enqueue,
    enqueue_again,
    notice_move,
    serving,
)

__all__ = [
    "Courier",
    "FileDatabase",
    "check_hook",
    "enqueue",
    "enqueue_again",
    "notice_move",
    "serving",
]
