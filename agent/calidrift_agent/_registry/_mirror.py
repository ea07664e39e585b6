"""The local copy of a registry behind a URL: what is served is read from here, verified."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Final, final

from calidrift_agent._registry._layout import (
    MANIFEST_FILE,
    PARTIAL,
    Pointer,
    VersionLayout,
    number_of,
    read_pointer,
)
from calidrift_agent._registry._store import RegistryStore
from calidrift_agent._registry._versions import Version, listed_files, open_named
from calidrift_agent.errors import RegistryError

_LOCK: Final = ".mirror"
_ID_DIGITS: Final = 16


@final
class Mirror:
    """Copies versions of one model out of a store into a folder of this machine.

    The folder is a registry of its own: versions appear by a rename, after every file was verified,
    and its pointer names the last version that was wholly there. Processes may share it.

    Args:
        url: The registry.
        model: Name of the model.
        cache: Folder for copies; each URL has a folder of its own in it.
        keep: Most versions that stay, the ones that were used last; at least 2.

    Raises:
        ConfigurationError: The URL or the name cannot be used, or a package is missing.
    """

    __slots__ = ("_keep", "_layout", "_store")

    def __init__(self, url: str, model: str, cache: str | PathLike[str], keep: int) -> None:
        self._store = RegistryStore(url, model)
        name = hashlib.sha256(self._store.url.encode()).hexdigest()[:_ID_DIGITS]
        # Never the given folder itself: that might be a registry, whose versions are not ours.
        self._layout = VersionLayout(Path(cache) / f"mirror-{name}", model)
        self._keep = keep

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._layout.model

    def pointer(self) -> Pointer | None:
        """Ask the store which version serves; `None` where nothing was published.

        Raises:
            RegistryError: The pointer there is damaged.
            RegistryUnreachableError: The store does not answer.
        """
        return self._store.pointer()

    def last_known(self) -> Pointer | None:
        """The version that was last wholly here, for the time in which the store is away."""
        try:
            return read_pointer(self._layout)
        except RegistryError:
            return None

    def open(self, pointer: Pointer, serving: str | None, *, remember: bool = True) -> Version:
        """Give a version that the store names, verified; copy it first where it is not here.

        Args:
            pointer: What the store named.
            serving: The version that serves; it stays.
            remember: Whether it becomes the one that is last known; not where it is a canary,
                because processes that are none may start from this folder.

        Raises:
            RegistryError: It is damaged or unfinished there, or cannot be written here.
            RegistryUnreachableError: The store does not answer.
        """
        try:
            with self._locked():
                version = self._held(pointer) or self._fetched(pointer)
                os.utime(version.path)
                if remember:
                    self._point(pointer)
                self._tidy({pointer.version, serving})
        except OSError as error:
            if isinstance(error, RegistryError):
                raise
            raise RegistryError(
                f"version {pointer.version} cannot be copied to {self._layout.root} "
                f"({error.strerror or error}); make room there or correct its permissions"
            ) from error
        return version

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time copy; the lock ends with its process."""
        self._layout.versions.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._layout.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _held(self, pointer: Pointer) -> Version | None:
        """The copy that is here, every byte of it verified; a damaged one is removed."""
        path = self._layout.version(pointer.version)
        if not path.exists():
            return None
        try:
            return open_named(self._layout, pointer)
        except RegistryError:
            shutil.rmtree(path)
            return None

    def _fetched(self, pointer: Pointer) -> Version:
        """Copy a version beside the others, and give it its name when it is whole."""
        partial = self._layout.partial(number_of(pointer.version))
        for entry in self._layout.versions.iterdir():
            if entry.name.endswith(PARTIAL) and entry != partial:
                shutil.rmtree(entry)
        partial.mkdir(exist_ok=True)  # what an interrupted copy left is verified and used
        place = self._store.place(pointer.version, MANIFEST_FILE)
        content = self._store.read(place)
        if content is None:
            raise self._damaged(place, "it is not there")
        if hashlib.sha256(content).hexdigest() != pointer.manifest_sha256:
            raise self._damaged(place, "its sha256 is not the one that was promoted")
        for name, (digest, size) in listed_files(content, place).items():
            self._copy(self._store.place(pointer.version, name), partial / name, digest, size)
        (partial / MANIFEST_FILE).write_bytes(content)
        partial.rename(self._layout.version(pointer.version))
        return open_named(self._layout, pointer)

    def _copy(self, place: Path, target: Path, digest: str, size: int) -> None:
        if _is(target, digest, size):
            return
        found, length = hashlib.sha256(), 0
        try:
            with target.open("wb") as file:
                for chunk in self._store.chunks(place):
                    length += len(chunk)
                    if length > size:
                        break  # never more onto the disk than was promoted
                    found.update(chunk)
                    file.write(chunk)
        except FileNotFoundError as error:
            raise self._damaged(place, "it is not there") from error
        if length != size:
            raise self._damaged(place, f"it has other than {size} bytes")
        if found.hexdigest() != digest:
            raise self._damaged(place, "its sha256 is not the one of its manifest")

    def _point(self, pointer: Pointer) -> None:
        named = replace(pointer, canary=None)  # which may not be here
        if self.last_known() == named:
            return
        temporary = self._layout.pointer.with_name(f"{self._layout.pointer.name}.tmp")
        temporary.write_text(named.to_json(), encoding="utf-8")
        temporary.replace(self._layout.pointer)

    def _tidy(self, wanted: set[str | None]) -> None:
        """Remove the copies that were not used for longest."""
        paths = [self._layout.version(one) for one in self._layout.identities()]
        others = [path for path in paths if path.name not in wanted]
        spare = max(self._keep - (len(paths) - len(others)), 0)
        for path in sorted(others, key=_used, reverse=True)[spare:]:
            shutil.rmtree(path, ignore_errors=True)

    def _damaged(self, place: Path, what: str) -> RegistryError:
        return RegistryError(
            f"{self._store.shown(place)} is damaged ({what}); this version is not served: publish "
            "it again with `calidrift publish`, or go to another one with `calidrift rollback`"
        )


def _is(path: Path, digest: str, size: int) -> bool:
    """Whether a file is here already."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == size:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
    return False


def _used(path: Path) -> int:
    return path.stat().st_mtime_ns
