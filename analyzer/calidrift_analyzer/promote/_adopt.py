"""The first version of a registry: what served before anything was promoted."""

import hashlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from calidrift_agent._profile import CalibrationProfile, utc_now
from calidrift_agent._registry import (
    FORMAT,
    MODEL_FILE,
    PROFILE_FILE,
    REPORT_FILE,
    VersionLayout,
)
from calidrift_agent.errors import RegistryError
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.promote._files import copy_verified, locked
from calidrift_analyzer.promote._sealing import seal_version, write_file
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
            version = seal_version(
                layout, 1, lambda partial: _write(partial, layout, folder, kernels, step), step
            )
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
) -> dict[str, Any]:
    profile = CalibrationProfile.load(folder / PROFILE_FILE)
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
    files[REPORT_FILE] = write_file(partial / REPORT_FILE, report)
    return {
        "format": FORMAT,
        "model": layout.model,
        "number": 1,
        "created": utc_now(),
        "parent": None,
        "candidate": {"id": "adopted", "layers": list(kernels)},
        "profile": profile.digest,
        "files": files,
    }
