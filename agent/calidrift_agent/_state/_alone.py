"""One sweeper per directory: a record lock among processes, a mutex among threads."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from calidrift_agent.errors import StateError

_sweeping = threading.Lock()
_fork_hook_set = False


def _renew() -> None:
    global _sweeping
    _sweeping = threading.Lock()


@contextlib.contextmanager
def alone_in(folder: Path, name: str) -> Iterator[bool]:
    """Whether this is the only sweeper of a directory, for as long as the block lasts.

    Args:
        folder: The directory.
        name: File in it that carries the lock.

    Raises:
        StateError: The file cannot be opened.
    """
    global _fork_hook_set
    if not _fork_hook_set:
        _fork_hook_set = True
        os.register_at_fork(after_in_child=_renew)
    mine = _sweeping  # a record lock does not keep out other threads of this process
    if not mine.acquire(blocking=False):
        yield False
        return
    try:
        try:
            flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
            descriptor = os.open(folder / name, flags, 0o600)
        except OSError as error:
            raise StateError(
                f"state_dir {folder} cannot be swept ({error.strerror}); files of dead processes "
                "are removed only where this process may write"
            ) from error
        try:
            yield _locked(descriptor)
        finally:
            os.close(descriptor)
    finally:
        mine.release()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
