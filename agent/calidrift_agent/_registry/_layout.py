"""Where things are in a registry.

    <registry>/<model>/current                 pointer: which version serves
    <registry>/<model>/versions/<id>/          model.pt2, profile.json, report.json, manifest.json
    <registry>/<model>/versions/<number>.partial/   a promotion that has not finished

A version's id is its number and the start of its manifest's sha256, and the manifest holds the
sha256 of every other file: the name of a folder says what must be in it.
"""

import json
import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Final, final

from calidrift_agent.errors import ConfigurationError, RegistryError

MODEL_FILE: Final = "model.pt2"
PROFILE_FILE: Final = "profile.json"
REPORT_FILE: Final = "report.json"
MANIFEST_FILE: Final = "manifest.json"

FORMAT: Final = 1
PARTIAL: Final = ".partial"
_POINTER: Final = "current"
_LOCK: Final = ".lock"
_VERSIONS: Final = "versions"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ID: Final = re.compile(r"(\d{6,})-([0-9a-f]{16})")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_ID_DIGITS: Final = 16


@final
@dataclass(frozen=True, slots=True)
class Pointer:
    """What the pointer file says.

    Attributes:
        version: The version that serves.
        manifest_sha256: sha256 of its manifest.
        canary: The version that replicas marked as canaries serve instead of it, which names no
            canary itself; `None` where all serve the same one.
    """

    version: str
    manifest_sha256: str
    canary: "Pointer | None" = None

    @property
    def named(self) -> "tuple[Pointer, ...]":
        """Every version that somebody is to serve: that of most, then that of the canaries."""
        return (self,) if self.canary is None else (self, self.canary)

    def to_json(self) -> str:
        """The content of the pointer file."""
        content: dict[str, object] = {
            "format": FORMAT,
            "version": self.version,
            "manifest_sha256": self.manifest_sha256,
        }
        if self.canary is not None:
            # Readers that know of no canary skip it, and serve what most are to serve.
            content["canary"] = {
                "version": self.canary.version,
                "manifest_sha256": self.canary.manifest_sha256,
            }
        return json.dumps(content, indent=2) + "\n"


@final
class VersionLayout:
    """Paths of one model in a registry.

    Args:
        registry: The registry's folder.
        model: Name of the model.

    Raises:
        ConfigurationError: The name of the model cannot be a folder's, or the registry is a URL.
    """

    __slots__ = ("model", "root")

    def __init__(self, registry: str | PathLike[str], model: str) -> None:
        if isinstance(registry, str) and "://" in registry:
            raise ConfigurationError(
                f"{registry} is a URL, and here the registry is a folder; follow(...) takes a URL, "
                "with FollowOptions(cache=...) as the folder of its local copy"
            )
        if not _NAME.fullmatch(model):
            raise ConfigurationError(
                f"{model!r} is not a name of a model; allowed are up to 64 letters, digits and "
                "._- after a letter or digit"
            )
        self.model = model
        self.root = Path(registry) / model

    @property
    def pointer(self) -> Path:
        """The pointer file."""
        return self.root / _POINTER

    @property
    def lock(self) -> Path:
        """The file that promotions and rollbacks lock."""
        return self.root / _LOCK

    @property
    def versions(self) -> Path:
        """The folder of all versions."""
        return self.root / _VERSIONS

    def version(self, identity: str) -> Path:
        """The folder of one version.

        Raises:
            RegistryError: This is no version's id (in particular no path).
        """
        if not _ID.fullmatch(identity):
            raise RegistryError(
                f"{identity!r} is not a version of {self.model}; a version looks like "
                "000001-0123456789abcdef"
            )
        return self.versions / identity

    def partial(self, number: int) -> Path:
        """The folder in which version `number` is being written."""
        return self.versions / f"{number:06d}{PARTIAL}"

    def identities(self) -> list[str]:
        """Ids of all finished versions, damaged ones included, oldest first."""
        try:
            found = [entry.name for entry in self.versions.iterdir() if _ID.fullmatch(entry.name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RegistryError(
                f"{self.versions} cannot be listed ({error.strerror}); check its permissions"
            ) from error
        return sorted(found, key=number_of)


def number_of(identity: str) -> int:
    """Number of a version.

    >>> number_of("000012-0123456789abcdef")
    12
    """
    return int(identity.partition("-")[0])


def identity_of(number: int, manifest_sha256: str) -> str:
    """Id of a version.

    >>> identity_of(1, "ab" * 32)
    '000001-abababababababab'
    """
    return f"{number:06d}-{manifest_sha256[:_ID_DIGITS]}"


def digest_prefix(identity: str) -> str:
    """Start of the manifest's sha256 that a version's id promises."""
    return identity.partition("-")[2]


def read_pointer(layout: VersionLayout) -> Pointer | None:
    """Read the pointer of a model; `None` where nothing was ever promoted.

    Raises:
        RegistryError: It cannot be read or is damaged.
    """
    try:
        text = layout.pointer.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(
            f"{layout.pointer} cannot be read ({error}); restore it, or name a version with "
            "`calidrift rollback --to`"
        ) from error
    return parse_pointer(text, str(layout.pointer))


def parse_pointer(text: str | bytes, source: str) -> Pointer:
    """Read the content of a pointer.

    Args:
        text: The content; one that was not written to its end names no version. A canary in it
            that is damaged is none: what most serve must never depend on it.
        source: Where it stands, for the message.

    Raises:
        RegistryError: It is damaged, or of a newer version.
    """
    content = _parsed(text)
    match content:
        case {"format": int(number), **__} if number > FORMAT:
            raise RegistryError(
                f"{source} has format {number}, but this version reads up to {FORMAT}; "
                "update calidrift here"
            )
        case {"format": 1, "version": str(version), "manifest_sha256": str(digest)} if (
            _ID.fullmatch(version) and _DIGEST.fullmatch(digest)
        ):
            return Pointer(version, digest, _canary(content, version))
    raise RegistryError(
        f"{source} is damaged: it names no version; name one with `calidrift rollback --to`"
    )


def _canary(content: object, serving: str) -> Pointer | None:
    match content:
        case {"canary": {"version": str(version), "manifest_sha256": str(digest)}} if (
            _ID.fullmatch(version) and _DIGEST.fullmatch(digest) and version != serving
        ):
            return Pointer(version, digest)
    return None


def _parsed(text: str | bytes) -> object:
    try:
        return json.loads(text)
    except ValueError:  # also bytes that are no text
        return None
