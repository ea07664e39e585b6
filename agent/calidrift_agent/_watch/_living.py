"""The watches of this process: what a fork and the end of the interpreter do to them."""

import atexit
import os
import weakref
from contextlib import suppress

from calidrift_agent._observe import renew_lock
from calidrift_agent._taps import reseed
from calidrift_agent._watch._engine import Engine

_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()
_hooked = False


def register(engine: Engine) -> None:
    """Have an engine begin anew in a forked child, and write its last window at exit."""
    global _hooked
    if not _hooked:
        _hooked = True
        os.register_at_fork(after_in_child=_after_fork)
        atexit.register(_at_exit)
    _engines.add(engine)


def _after_fork() -> None:
    # No logging, no thread, no file in here: other libraries hold their locks at this moment,
    # and some servers close all descriptors of a child right after.
    renew_lock()
    reseed()
    for engine in list(_engines):
        with suppress(Exception):
            engine.after_fork()


def _at_exit() -> None:
    for engine in list(_engines):
        with suppress(Exception):
            engine.close()
