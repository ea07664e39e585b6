"""Writes the state file of one watched model: preallocated, mapped, checksummed, locked."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import time
import urllib.parse
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from calidrift_agent._state._buffer import WindowBuffer
from calidrift_agent._state._codec import WindowEncoder
from calidrift_agent._state._layout import (
    BLANK,
    MAX_SLOTS,
    MIN_SLOTS,
    RECORD_BYTES,
    Layout,
    RecordHead,
    checksum,
)
from calidrift_agent._state._meta import StateMeta
from calidrift_agent._state._window import Window
from calidrift_agent.errors import ConfigurationError, StateError, StateSpaceError

STATE_SUFFIX: Final = ".state"
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM})
_MAX_NAME_BYTES: Final = 180


@final
@dataclass(frozen=True, slots=True)
class StateOptions:
    """Size of a state file.

    Attributes:
        slots: Closed windows that the file keeps, 4 to 64; None for as many as fit into
            `ring_limit`. A reader that comes later than that gets one coarse window for those
            it missed.
        ring_limit: Bytes for closed windows when `slots` is None. 40 points take 0.23 MB per
            window, so that the default keeps 64 of them in 15 MB; 400 points keep 15 in 33 MB.
    """

    slots: int | None = None
    ring_limit: int = 32 * 1024 * 1024

    def __post_init__(self) -> None:
        slots, limit = self.slots, self.ring_limit
        if slots is not None and (type(slots) is not int or not MIN_SLOTS <= slots <= MAX_SLOTS):
            raise ConfigurationError(
                f"slots must be a whole number between {MIN_SLOTS} and {MAX_SLOTS}, got {slots!r}"
            )
        if type(limit) is not int or limit < 0:
            raise ConfigurationError(f"ring_limit must be 0 or more whole bytes, got {limit!r}")


_living: weakref.WeakSet[StateWriter] = weakref.WeakSet()
_fork_hook_set = False


def _abandon_all() -> None:
    for writer in list(_living):
        writer.abandon()


@final
class StateWriter:
    """The one writer of a state file; create it with `StateWriter.create`.

    Only one thread may write. The file is locked (`flock`) for as long as the process lives, so
    that readers can tell a dead process from a slow one. A forked child drops its copies of the
    lock and of the mapping at once and never writes: it needs a writer of its own.

    Cost of `write_open`, 40 points of 280 non-zero cells each: 65 us in a loop, 90 us after a
    pause (measured; 200 points 230 and 280 us, and a third of that where nothing was added to
    their cells since the last time). It makes no system call but the pid check.
    """

    def __init__(self, path: Path, descriptor: int, memory: mmap.mmap, layout: Layout) -> None:
        self._path = path
        self._descriptor = descriptor
        self._map: mmap.mmap | None = memory
        self._layout = layout
        self._encoder = WindowEncoder(layout.points)
        self._process = os.getpid()
        self._live_sequence = 0
        self._cumulative_sequence = 0
        self._ring_sequence = 0

    @classmethod
    def create(
        cls, directory: Path | str, meta: StateMeta, options: StateOptions | None = None
    ) -> StateWriter:
        """Create `<directory>/<process>-<model>.state` with all its space reserved.

        The directory is made with mode 0700 where it does not exist, the file has mode 0600. It
        appears under its name only when it is complete.

        Raises:
            StateSpaceError: No room (disk, tmpfs, quota or file size limit). Nothing is left.
            ConfigurationError: The directory cannot be made or written.
        """
        _set_fork_hook()
        options = options or StateOptions()
        try:
            description = meta.to_json().encode()
        except UnicodeEncodeError as error:
            raise ConfigurationError(
                f"the name of the model ({meta.model!r}) or of a point holds half a character, "
                "which no file can; choose another name"
            ) from error
        layout = Layout.plan(len(meta.points), len(description), options.slots, options.ring_limit)
        folder = Path(directory)
        path = folder / _file_name(meta)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, memory = _create_file(path, layout, layout.pack(description))
        except OSError as error:
            raise _create_error(error, path, layout) from error
        except ValueError as error:
            raise ConfigurationError(
                f"state_dir {str(directory)!r} is not a path ({error}); give a folder"
            ) from error
        writer = cls(path, descriptor, memory, layout)
        _living.add(writer)
        return writer

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self._path

    @property
    def closed(self) -> bool:
        """Whether this writer can no longer write (closed, or abandoned after a fork)."""
        return self._map is None

    def write_open(self, buffer: WindowBuffer, now_ns: int | None = None) -> None:
        """Write the open window as it stands; it survives the death of the process.

        Args:
            buffer: The buffer whose open window is written.
            now_ns: Current UTC time in nanoseconds; default: the clock.

        Raises:
            StateError: This writer is closed, or belongs to the parent of this process.
        """
        window = buffer.open_window(time.time_ns() if now_ns is None else now_ns)
        self._live_sequence += 1
        offset = self._layout.live[self._live_sequence % 2]
        if buffer.additions:
            payload = self._encoder.encode(window, (window.number, buffer.additions))
        else:
            payload = self._encoder.encode(window)
        self._write(offset, self._live_sequence, window.number, payload)

    def write_closed(self, window: Window) -> None:
        """Append a closed window to the ring, over several slots where it is too large for one.

        Call `write_cumulative` right after it.

        Raises:
            StateError: This writer is closed, or belongs to the parent of this process.
        """
        payload = self._encoder.encode(window)
        room = self._layout.ring_bytes - RECORD_BYTES
        parts = -(-len(payload) // room)
        for part in range(parts):
            offset = self._layout.ring(self._ring_sequence % self._layout.slots)
            self._ring_sequence += 1
            piece = payload[part * room : (part + 1) * room]
            self._write(offset, self._ring_sequence, window.number, piece, (part, parts))

    def write_cumulative(self, total: Window) -> None:
        """Write the sum of all closed windows (`WindowBuffer.cumulative()`).

        Raises:
            StateError: This writer is closed, or belongs to the parent of this process.
        """
        self._cumulative_sequence += 1
        offset = self._layout.cumulative[self._cumulative_sequence % 2]
        self._write(offset, self._cumulative_sequence, total.number, self._encoder.encode(total))

    def _write(
        self,
        offset: int,
        sequence: int,
        number: int,
        payload: memoryview,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        memory = self._map
        if memory is None or self._process != os.getpid():
            raise StateError(
                f"the writer of {self._path.name} is closed or belongs to the process that this "
                "one was forked from; create a new StateWriter"
            )
        # Where somebody cut the file short, touching the mapping would kill the host (SIGBUS).
        if os.fstat(self._descriptor).st_size < self._layout.total_bytes:
            raise StateError(f"the state file {self._path} was cut short while in use")
        head = RecordHead(sequence, number, len(payload), *part, checksum(payload)).pack()
        body = offset + RECORD_BYTES
        memory[offset:body] = BLANK
        memory[body : body + len(payload)] = payload
        memory[offset:body] = head

    def close(self) -> None:
        """Release the lock and the file; what was written stays for readers. Safe to repeat."""
        if self._map is not None and self._process == os.getpid():
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self.abandon()

    def abandon(self) -> None:
        """Forget file, mapping and lock without touching them: what a forked child must do.

        The lock belongs to the open file that parent and child share. Unlocking it here would
        make the parent look dead; keeping it open here would make the parent look alive after
        its death. Called by itself in every child made with `os.fork`; safe to repeat.
        """
        memory, self._map = self._map, None
        if memory is None:
            return
        memory.close()
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        _living.discard(self)


def _set_fork_hook() -> None:
    global _fork_hook_set
    if not _fork_hook_set:
        _fork_hook_set = True
        os.register_at_fork(after_in_child=_abandon_all)


def _file_name(meta: StateMeta) -> str:
    model = urllib.parse.quote(meta.model, safe="")[:_MAX_NAME_BYTES]
    return f"{meta.process}-{model}{STATE_SUFFIX}"


def _create_file(path: Path, layout: Layout, beginning: bytes) -> tuple[int, mmap.mmap]:
    if path.exists():
        raise FileExistsError(errno.EEXIST, "the file exists already", str(path))
    temporary = path.with_name(f".{path.name}.tmp")
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A store into a mapped hole of a full disk kills the process with SIGBUS: reserve first.
        os.posix_fallocate(descriptor, 0, layout.total_bytes)
        memory = mmap.mmap(descriptor, layout.total_bytes)
        try:
            memory[: len(beginning)] = beginning
            temporary.rename(path)
        except OSError:
            memory.close()
            raise
    except OSError:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)
        raise
    return descriptor, memory


def _create_error(error: OSError, path: Path, layout: Layout) -> StateError | ConfigurationError:
    if error.errno in _NO_SPACE:
        return StateSpaceError(
            f"no room for the state file {path}: it needs {layout.total_bytes:,} bytes "
            f"({error.strerror}); free some, or choose another state_dir"
        )
    return ConfigurationError(
        f"state_dir {path.parent} cannot be used ({error.strerror}: {error.filename}); it must be "
        "a folder in which this process may create files"
    )
