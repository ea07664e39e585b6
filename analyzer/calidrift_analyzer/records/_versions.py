"""A version that was put into service."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

__all__ = ["PromotedVersion"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PromotedVersion:
    """What serves from now on.

    Attributes:
        model: Name of the model.
        id: Version, `<number>-<start of the manifest's sha256>`.
        parent: Version that served before; `None` for the first.
        path: Folder of the version.
        manifest: The manifest as JSON text.
        profile: Digest of its profile.
    """

    model: str
    id: str
    parent: str | None
    path: Path
    manifest: str
    profile: str
