"""The watches of this process: what a fork and the end of the process do to them."""

import atexit
import os
import sys
import weakref
from contextlib import suppress
from typing import Protocol

from calidrift_agent._observe import keep_own_blocks, renew_lock
from calidrift_agent._taps import reseed


class Living(Protocol):
    """What is told about forks and ends."""

    def after_fork(self) -> None:
        """Begin anew in a child; open, start and log nothing."""

    def close(self) -> None:
        """Write what is left."""


_living: "weakref.WeakSet[Living]" = weakref.WeakSet()
_hooked = False
_finalized = -1
"""The process that has its own hook for the end of a `multiprocessing` child."""


def register(engine: Living) -> None:
    """Have an engine begin anew in a forked child, and write its last window at exit."""
    global _hooked
    if not _hooked:
        _hooked = True
        os.register_at_fork(after_in_child=_after_fork)
        atexit.register(_at_exit)
    _living.add(engine)


def close_with_the_child() -> None:
    """Have the last window written at the end of a `multiprocessing` child, too.

    Such a child leaves with `os._exit` and runs no `atexit` function, only its own finalizers,
    and it forgets those of its parent when it begins. So each child asks for one, with its first
    request.
    """
    global _finalized
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is None or process is None or _finalized == os.getpid():
        return
    _finalized = os.getpid()
    if process.parent_process() is not None:
        util.Finalize(None, _at_exit, exitpriority=0)


def _after_fork() -> None:
    # No logging, no thread, no file in here: other libraries hold their locks at this moment,
    # and some servers close all descriptors of a child right after.
    renew_lock()
    reseed()
    keep_own_blocks()
    for engine in list(_living):
        with suppress(Exception):
            engine.after_fork()


def _at_exit() -> None:
    for engine in list(_living):
        with suppress(Exception):
            engine.close()
