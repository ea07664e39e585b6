"""Versions of a model: opened only when every byte is what its manifest says."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, final

from calidrift_agent._registry._layout import (
    FORMAT,
    MANIFEST_FILE,
    MODEL_FILE,
    PROFILE_FILE,
    REPORT_FILE,
    Pointer,
    VersionLayout,
    digest_prefix,
    read_pointer,
)
from calidrift_agent.errors import RegistryError

_REQUIRED: Final = frozenset({MODEL_FILE, PROFILE_FILE, REPORT_FILE})


@final
@dataclass(frozen=True, slots=True)
class Version:
    """A complete, verified version.

    Attributes:
        model: Name of the model.
        id: The version.
        path: Its folder.
        manifest: What its manifest says; read-only.
    """

    model: str
    id: str
    path: Path
    manifest: Mapping[str, Any]

    @property
    def model_path(self) -> Path:
        """The exported INT8 model, for `torch.export.load`."""
        return self.path / MODEL_FILE

    @property
    def profile_path(self) -> Path:
        """The calibration profile, for `CalibrationProfile.load` and `watch(profile=...)`."""
        return self.path / PROFILE_FILE

    @property
    def report_path(self) -> Path:
        """The validation report."""
        return self.path / REPORT_FILE

    @property
    def parent(self) -> str | None:
        """The version that served before this one was promoted."""
        parent = self.manifest.get("parent")
        return parent if isinstance(parent, str) else None


@final
@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One finished version in a registry.

    Attributes:
        id: The version.
        path: Its folder.
        current: Whether the pointer names it.
        problem: What is damaged; `None` where it is complete.
    """

    id: str
    path: Path
    current: bool
    problem: str | None


def open_version(registry: str | PathLike[str], model: str, version: str | None = None) -> Version:
    """Open the version that serves, or a given one, and verify every file of it.

    Args:
        registry: The registry's folder.
        model: Name of the model.
        version: Its id; the one that the pointer names where not given.

    Returns:
        The version. Its files are never changed afterwards, so they may be read at any time.

    Raises:
        RegistryError: Nothing was promoted yet, or the version is damaged or unfinished; the
            message names the file. Keep serving what is already loaded.
        ConfigurationError: `model` cannot be a model's name.

    Cost: one sha256 over all files, about 2 s per GB without SHA instructions.
    """
    layout = VersionLayout(registry, model)
    if version is not None:
        return _verified(layout, version, None)
    pointer = read_pointer(layout)
    if pointer is None:
        raise RegistryError(
            f"no version of {model} was promoted into {registry}; run `calidrift promote`"
        )
    return _verified(layout, pointer.version, pointer.manifest_sha256)


def open_named(layout: VersionLayout, pointer: Pointer) -> Version:
    """Open the version that a pointer names, and verify every file of it.

    Raises:
        RegistryError: It is not there, damaged or unfinished.
    """
    return _verified(layout, pointer.version, pointer.manifest_sha256)


def listed_files(content: bytes, path: Path) -> dict[str, tuple[str, int]]:
    """Give sha256 and bytes of each file that a manifest lists.

    Args:
        content: The manifest; its own sha256 was checked before.
        path: Where it stands, for messages.

    Raises:
        RegistryError: It lists no files of a version.
    """
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise _damaged(path, "it is not JSON") from error
    return {
        name: _expected(entry, path.with_name(name))
        for name, entry in _files(manifest, path).items()
    }


def list_versions(registry: str | PathLike[str], model: str) -> tuple[VersionStatus, ...]:
    """List the finished versions of a model, oldest first, each one verified.

    Raises:
        RegistryError: The registry cannot be listed.
        ConfigurationError: `model` cannot be a model's name.
    """
    layout = VersionLayout(registry, model)
    try:
        pointer = read_pointer(layout)
    except RegistryError:
        pointer = None
    found = []
    for identity in layout.identities():
        problem = None
        try:
            _verified(layout, identity, None)
        except RegistryError as error:
            problem = str(error)
        current = pointer is not None and pointer.version == identity
        found.append(VersionStatus(identity, layout.version(identity), current, problem))
    return tuple(found)


def _verified(layout: VersionLayout, identity: str, digest: str | None) -> Version:
    path = layout.version(identity)
    if not path.is_dir():
        raise RegistryError(
            f"version {identity} of {layout.model} is not in {layout.versions}; "
            "`calidrift rollback --to` takes one that is"
        )
    manifest_path = path / MANIFEST_FILE
    content = _read(manifest_path)
    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(digest_prefix(identity)) or (digest is not None and found != digest):
        raise _damaged(manifest_path, "its sha256 is not the one that was promoted")
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise _damaged(manifest_path, "it is not JSON") from error
    files = _files(manifest, manifest_path)
    for name, expected in files.items():
        _verify(path / name, expected)
    return Version(layout.model, identity, path, MappingProxyType(manifest))


def _files(manifest: object, path: Path) -> dict[str, Mapping[str, Any]]:
    match manifest:
        case {"format": int(number), **__} if number > FORMAT:
            raise RegistryError(
                f"{path} has format {number}, but this version reads up to {FORMAT}; "
                "update calidrift here"
            )
        case {"format": 1, "files": dict(files)} if files.keys() >= _REQUIRED:
            # A manifest is trusted by its sha256; its names must still stay in its folder.
            if all(Path(name).name == name for name in files):
                return files
    raise _damaged(path, "it does not list the files of a version")


def _expected(entry: Any, path: Path) -> tuple[str, int]:
    match entry:
        case {"sha256": str(digest), "bytes": int(size)}:
            return digest, size
    raise _damaged(path.with_name(MANIFEST_FILE), f"its entry for {path.name} is no entry")


def _verify(path: Path, entry: Any) -> None:
    digest, size = _expected(entry, path)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            length = file.tell()
    except OSError as error:
        raise _damaged(path, f"it cannot be read: {error.strerror}") from error
    if length != size:
        raise _damaged(path, f"it has {length} bytes instead of {size}")
    if found != digest:
        raise _damaged(path, "its sha256 is not the one of its manifest")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _damaged(path, f"it cannot be read: {error.strerror}") from error


def _damaged(path: Path, what: str) -> RegistryError:
    return RegistryError(
        f"{path} is damaged ({what}); this version is not served: restore the file, or go to "
        "another version with `calidrift rollback`"
    )
