"""Steps that every move of the pointer takes."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from calidrift_agent._registry import (
    MANIFEST_FILE,
    PARTIAL,
    Pointer,
    Version,
    VersionLayout,
    read_pointer,
)
from calidrift_agent.errors import RegistryError
from calidrift_analyzer.promote._files import switch
from calidrift_analyzer.records import PromotedVersion

__all__ = [
    "StepCallback",
    "current_version",
    "ignore_step",
    "json_bytes",
    "pointer_to",
    "promoted_version",
    "remove_partial",
    "switch_to",
]

StepCallback = Callable[[str], None]
"""Called with the name of each step before it is taken."""


def ignore_step(step: str) -> None:
    """Nobody asked."""


def remove_partial(layout: VersionLayout) -> None:
    """Remove what killed promotions left; the lock says that none is at work."""
    for entry in layout.versions.iterdir():
        if entry.name.endswith(PARTIAL):
            shutil.rmtree(entry)


def current_version(layout: VersionLayout) -> str | None:
    """The version that the pointer names; `None` where there is none, or no readable one."""
    try:
        pointer = read_pointer(layout)
    except RegistryError:
        return None
    return None if pointer is None else pointer.version


def switch_to(layout: VersionLayout, version: Version, step: StepCallback) -> None:
    """Let the pointer name a version."""
    step("switch")
    switch(layout, pointer_to(version))


def pointer_to(version: Version) -> Pointer:
    """Give what names a version."""
    content = (version.path / MANIFEST_FILE).read_bytes()
    return Pointer(version.id, hashlib.sha256(content).hexdigest())


def promoted_version(version: Version) -> PromotedVersion:
    """What the rest of the analyzer is told of a version."""
    return PromotedVersion(
        model=version.model,
        id=version.id,
        parent=version.parent,
        path=version.path,
        manifest=json_bytes(dict(version.manifest)).decode(),
        profile=str(version.manifest.get("profile", "")),
    )


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """The one text of a document in a registry."""
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
