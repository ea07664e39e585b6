"""Writing a version beside the others: whole, on the disk, verified before anything names it."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from calidrift_agent._registry import (
    MANIFEST_FILE,
    Version,
    VersionLayout,
    identity_of,
    number_of,
    open_version,
)
from calidrift_analyzer.promote._files import sync_folder, write_synced
from calidrift_analyzer.promote._steps import StepCallback, json_bytes

__all__ = ["next_number", "seal_version", "write_file"]

Write = Callable[[Path], Mapping[str, Any]]
"""Writes the files of a version into a folder, and gives its manifest."""


def next_number(layout: VersionLayout) -> int:
    """Give the number of the next version."""
    return max((number_of(one) for one in layout.identities()), default=0) + 1


def seal_version(layout: VersionLayout, number: int, write: Write, step: StepCallback) -> Version:
    """Write a version, give it its name by a rename, and verify it as the serving side will.

    Whoever calls this holds the lock of the registry. Nothing stays of one that fails.
    """
    partial = layout.partial(number)
    try:
        partial.mkdir()
        manifest = write(partial)
        step(f"write {MANIFEST_FILE}")
        content = json_bytes(manifest)
        write_synced(partial / MANIFEST_FILE, content)
        sync_folder(partial)
        step("publish")
        identity = identity_of(number, hashlib.sha256(content).hexdigest())
        partial.rename(layout.version(identity))
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(layout.versions)
    step("verify")
    return open_version(layout.root.parent, layout.model, identity)


def write_file(path: Path, content: bytes) -> dict[str, Any]:
    """Write a file of a version to the disk, and give its entry of the manifest."""
    write_synced(path, content)
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
