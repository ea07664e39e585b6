"""The first version of a registry: what served before anything was promoted."""

import hashlib
import shutil
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from calidrift_agent._profile import CalibrationProfile, utc_now
from calidrift_agent._registry import (
    FORMAT,
    MANIFEST_FILE,
    MODEL_FILE,
    PROFILE_FILE,
    REPORT_FILE,
    Version,
    VersionLayout,
    identity_of,
    open_version,
)
from calidrift_agent.errors import RegistryError
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.promote._files import copy_verified, locked, sync_folder, write_synced
from calidrift_analyzer.promote._steps import (
    StepCallback,
    ignore_step,
    json_bytes,
    promoted_version,
    remove_partial,
    switch_to,
)
from calidrift_analyzer.records import PromotedVersion

__all__ = ["adopt"]


def adopt(
    folder: Path,
    kernels: Mapping[str, int],
    registry: str | PathLike[str],
    model: str,
    *,
    on_step: StepCallback | None = None,
) -> PromotedVersion:
    """Make the model that serves already the first version of an empty registry.

    Without it the first promotion has no version before it, and nothing to go back to. Nothing is
    measured: its report says that it was adopted, and how many INT8 kernels its graph plans, which
    the serving side counts whenever it loads it.

    Args:
        folder: Its `model.pt2` and `profile.json`.
        kernels: Planned INT8 kernels per layer.
        registry: The registry's folder.
        model: Name of the model.
        on_step: Told of every step.

    Returns:
        The version that serves from now on.

    Raises:
        RefusedError: There are versions already. Nothing was changed.
        RegistryError: The files cannot be read, or the registry cannot be written.
    """
    step = on_step or ignore_step
    layout = VersionLayout(registry, model)
    try:
        step("lock")
        with locked(layout):
            remove_partial(layout)
            known = layout.identities()
            if known:
                raise RefusedError(
                    f"{model} has {len(known)} versions in {registry} already, and only an empty "
                    "registry takes in what serves; promote a validated candidate. Nothing was "
                    "changed"
                )
            partial = layout.partial(1)
            try:
                version = _write(partial, layout, folder, kernels, step)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            switch_to(layout, version, step)
            step("done")
    except OSError as error:
        if isinstance(error, RegistryError):
            raise
        raise RegistryError(
            f"{folder} cannot be taken into {layout.root} ({error.strerror or error}); make room, "
            "or correct the path or the permissions, and try again"
        ) from error
    return promoted_version(version)


def _write(
    partial: Path,
    layout: VersionLayout,
    folder: Path,
    kernels: Mapping[str, int],
    step: StepCallback,
) -> Version:
    profile = CalibrationProfile.load(folder / PROFILE_FILE)
    partial.mkdir()
    files: dict[str, dict[str, Any]] = {}
    for name in (MODEL_FILE, PROFILE_FILE):
        step(f"copy {name}")
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        files[name] = {
            "sha256": digest,
            "bytes": copy_verified(folder / name, partial / name, digest),
        }
    step(f"write {REPORT_FILE}")
    layers = [{"name": name, "planned": planned} for name, planned in kernels.items()]
    report = json_bytes(
        {"model": layout.model, "adopted": utc_now(), "kernels": {"layers": layers}}
    )
    write_synced(partial / REPORT_FILE, report)
    files[REPORT_FILE] = {"sha256": hashlib.sha256(report).hexdigest(), "bytes": len(report)}
    step(f"write {MANIFEST_FILE}")
    manifest = json_bytes(
        {
            "format": FORMAT,
            "model": layout.model,
            "number": 1,
            "created": utc_now(),
            "parent": None,
            "candidate": {"id": "adopted", "layers": list(kernels)},
            "profile": profile.digest,
            "files": files,
        }
    )
    write_synced(partial / MANIFEST_FILE, manifest)
    sync_folder(partial)
    step("publish")
    identity = identity_of(1, hashlib.sha256(manifest).hexdigest())
    partial.rename(layout.version(identity))
    sync_folder(layout.versions)
    step("verify")
    return open_version(layout.root.parent, layout.model, identity)
