"""Writing that survives a crash: data before names, names before the pointer."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from calidrift_agent._registry import Pointer, VersionLayout
from calidrift_agent.errors import RegistryError

__all__ = ["copy_verified", "locked", "switch", "sync_folder", "write_synced"]

_CHUNK: Final = 1 << 20
_WAIT_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05


@contextmanager
def locked(
    layout: VersionLayout,
    lock: Path | None = None,
    holder: str = "another promotion or rollback",
) -> Iterator[None]:
    """Hold the lock of a model's registry; it ends with the process, however that ends.

    Args:
        layout: The model's registry.
        lock: Another lock of it than the one of the pointer.
        holder: Who may hold it, in words.

    Raises:
        RegistryError: Somebody else holds it for too long.
    """
    lock = lock or layout.lock
    layout.versions.mkdir(parents=True, exist_ok=True)
    sync_folder(layout.root)
    sync_folder(layout.root.parent)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        until = time.monotonic() + _WAIT_SECONDS
        while not _try(descriptor):
            if time.monotonic() > until:
                raise RegistryError(
                    f"{holder} of {layout.model} holds {lock}; wait until it has ended"
                )
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def copy_verified(source: Path, target: Path, digest: str) -> int:
    """Copy a file to the disk, and check that it is the file that was validated.

    Returns:
        Its bytes.

    Raises:
        RegistryError: Its sha256 is another one.
        OSError: It cannot be read or written.
    """
    found = hashlib.sha256()
    size = 0
    with source.open("rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(_CHUNK):
            found.update(chunk)
            writer.write(chunk)
            size += len(chunk)
        _sync(writer)
    if found.hexdigest() != digest:
        raise RegistryError(
            f"{source} has changed since it was validated; validate the candidates again"
        )
    return size


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file to the disk."""
    with path.open("xb") as file:
        file.write(content)
        _sync(file)


def sync_folder(path: Path) -> None:
    """Write the names in a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def switch(layout: VersionLayout, pointer: Pointer) -> None:
    """Let the pointer name another version: one rename, seen whole or not at all."""
    temporary = layout.pointer.with_name(f"{layout.pointer.name}.tmp")
    # Only the holder of the lock writes it; what a killed process left is replaced.
    temporary.unlink(missing_ok=True)
    write_synced(temporary, pointer.to_json().encode())
    temporary.replace(layout.pointer)
    sync_folder(layout.root)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
