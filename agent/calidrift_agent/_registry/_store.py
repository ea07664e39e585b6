"""A registry behind a URL: objects of any store that fsspec knows.

The layout is that of a folder. `fsspec` is imported when a store is used and not before; a process
that reads a folder needs nothing of it.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final

from calidrift_agent._registry._layout import Pointer, VersionLayout, parse_pointer
from calidrift_agent.errors import ConfigurationError, RegistryError, RegistryUnreachableError

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?P<rest>[^\s]+)")
_CHUNK: Final = 1 << 20
_SHOWN: Final = 200
_READ: Final = "read"
_WRITTEN: Final = "written"


def is_url(registry: object) -> bool:
    """Whether a registry is a URL and not a folder.

    >>> is_url("s3://bucket/models"), is_url("/srv/models")
    (True, False)
    """
    return isinstance(registry, str) and "://" in registry


def check_url(url: str) -> str:
    """Refuse what cannot be the URL of a registry; nothing is looked up.

    Returns:
        The URL without slashes at its end.

    Raises:
        ConfigurationError: It is no URL, a chain of them, or holds a password.

    >>> check_url("s3://bucket/models/")
    's3://bucket/models'
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise ConfigurationError(
            f"{url!r} is not the URL of a registry; allowed is one that fsspec knows, such as "
            "s3://bucket/models, gs://bucket/models or file:///srv/models (chained URLs may hold "
            "an old pointer in a cache and are refused)"
        )
    host = found["rest"].partition("/")[0]
    if ":" in host.rpartition("@")[0]:
        raise ConfigurationError(
            "the URL of a registry must not hold a password, which would be seen in logs; leave it "
            "out, and give it to fsspec by the variables or the file of the store's own package"
        )
    return url.rstrip("/")


@final
class RegistryStore:
    """One model's versions behind a URL; one thread at a time may use it.

    Args:
        url: The registry, any URL that fsspec knows.
        model: Name of the model.

    Raises:
        ConfigurationError: The URL or the name cannot be used, or a package is missing.
    """

    __slots__ = ("_layout", "_system", "url")

    def __init__(self, url: str, model: str) -> None:
        self.url = check_url(url)
        # Names are checked, and paths made, by the one who does so for folders.
        self._layout = VersionLayout("", model)
        self._system: tuple[Any, str] | None = None
        _require_filesystem(self.url)

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._layout.model

    def place(self, identity: str, name: str) -> Path:
        """Path of one file of a version, below the URL."""
        return self._layout.version(identity) / name

    def shown(self, place: Path) -> str:
        """A place in words."""
        return f"{self.url}/{place}"

    def pointer(self) -> Pointer | None:
        """Read which version serves; `None` where nothing was published.

        Raises:
            RegistryError: What is there names no version.
            RegistryUnreachableError: The store does not answer.
        """
        content = self.read(self._layout.pointer)
        return None if content is None else parse_pointer(content, self.shown(self._layout.pointer))

    def read(self, place: Path) -> bytes | None:
        """Read a small object; `None` where there is none."""
        with self._border(_READ):
            system, root = self._opened()
            try:
                return bytes(system.cat_file(f"{root}/{place}"))
            except FileNotFoundError:
                return None

    def size(self, place: Path) -> int | None:
        """Bytes of an object; `None` where there is none, or the store does not tell."""
        with self._border(_READ):
            system, root = self._opened()
            system.invalidate_cache()
            try:
                size = system.info(f"{root}/{place}")["size"]
            except FileNotFoundError:
                return None
            return None if size is None else int(size)

    def chunks(self, place: Path) -> Iterator[bytes]:
        """Read an object piece by piece.

        Raises:
            FileNotFoundError: There is none.
            RegistryUnreachableError: The store does not answer.
        """
        with self._border(_READ):
            system, root = self._opened()
            with system.open(f"{root}/{place}", "rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk

    def holds(self, place: Path, digest: str, size: int) -> bool:
        """Whether an object is exactly this one: every byte of it is read."""
        found, length = hashlib.sha256(), 0
        try:
            for chunk in self.chunks(place):
                found.update(chunk)
                length += len(chunk)
        except FileNotFoundError:
            return False
        return length == size and found.hexdigest() == digest

    def send(self, source: Path, place: Path) -> None:
        """Write a file to the store, in place of what is there; whether it arrived is not said.

        Raises:
            RegistryUnreachableError: The store does not answer, or refuses.
        """
        with self._border(_WRITTEN):
            system, root = self._opened()
            _make_folder(system, f"{root}/{place.parent}")
            system.put_file(str(source), f"{root}/{place}")
            system.invalidate_cache()

    def point(self, pointer: Pointer) -> None:
        """Let the pointer name a version, which must be there as a whole.

        One object is replaced: at once in object stores and in folders. Where a store writes in
        place, a reader may see the beginning of a pointer, which names nothing.

        Raises:
            RegistryUnreachableError: The store does not answer, or refuses.
        """
        from fsspec.implementations.local import LocalFileSystem

        with self._border(_WRITTEN):
            system, root = self._opened()
            path, content = f"{root}/{self._layout.pointer}", pointer.to_json().encode()
            _make_folder(system, f"{root}/{self._layout.root}")
            if isinstance(system, LocalFileSystem):
                system.pipe_file(f"{path}.tmp", content)
                system.mv(f"{path}.tmp", path)  # a rename
            else:
                system.pipe_file(path, content)
            system.invalidate_cache()

    def _opened(self) -> tuple[Any, str]:
        """The file system and the path of the registry in it; made by whoever asks first."""
        if self._system is None:
            from fsspec.core import url_to_fs

            # An instance of our own: its caches are emptied without harm to others.
            system, root = url_to_fs(self.url, skip_instance_cache=True)
            self._system = system, str(root).rstrip("/")
        return self._system

    @contextmanager
    def _border(self, done: str) -> Iterator[None]:
        """Turn whatever a store's package raises into one kind of error."""
        try:
            yield
        except RegistryError:
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and done == _READ:
                raise
            said = " ".join(f"{type(error).__name__}: {error}".split())[:_SHOWN]
            raise RegistryUnreachableError(
                f"{self.url} cannot be {done} ({said}); what serves goes on serving: check the "
                "network, the address and the rights of this process"
            ) from error


def _require_filesystem(url: str) -> None:
    try:
        import fsspec
    except ImportError as error:
        raise ConfigurationError(
            f"{url} needs the package fsspec, which is not installed here; install the extra "
            "'remote' (pip install 'calidrift[remote]') and the package of the store, such as s3fs"
        ) from error
    protocol = url.partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise ConfigurationError(
            f"{url} needs a package that is not installed here: {error}"
        ) from error
    except ValueError as error:
        raise ConfigurationError(
            f"{url}: fsspec knows no store {protocol!r}; allowed are those of "
            "fsspec.available_protocols(), such as s3, gs, abfs, sftp and file"
        ) from error


def _make_folder(system: Any, path: str) -> None:
    from fsspec.asyn import AsyncFileSystem

    # Object stores have no folders, and asked for one s3fs would make a bucket of a mistyped name.
    if not isinstance(system, AsyncFileSystem):
        system.makedirs(path, exist_ok=True)
