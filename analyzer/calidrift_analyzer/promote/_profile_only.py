"""A version with the model of the one that serves and another profile: a reference was learned."""

from os import PathLike
from pathlib import Path
from typing import Any

from calidrift_agent._profile import CalibrationProfile, utc_now
from calidrift_agent._registry import (
    FORMAT,
    PROFILE_FILE,
    Version,
    VersionLayout,
    open_version,
)
from calidrift_agent.errors import RegistryError
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.promote._files import copy_verified, locked
from calidrift_analyzer.promote._sealing import next_number, seal_version, write_file
from calidrift_analyzer.promote._steps import (
    StepCallback,
    ignore_step,
    promoted_version,
    remove_partial,
    switch_to,
)
from calidrift_analyzer.records import PromotedVersion

__all__ = ["promote_profile"]


def promote_profile(
    profile: CalibrationProfile,
    registry: str | PathLike[str],
    model: str,
    *,
    on_step: StepCallback | None = None,
) -> PromotedVersion:
    """Put a learned profile into service, beside the model that serves now.

    Serving processes load the version as any other one. Nothing is measured again: model, ranges
    and kernels are those of the version before it, to which `rollback` goes back. Where the profile
    serves already, or another one that was learned from the same profile, nothing is changed.

    Args:
        profile: What `reference.learn` made.
        registry: The registry's folder.
        model: Name of the model.
        on_step: Told of every step.

    Returns:
        The version that serves from now on.

    Raises:
        RefusedError: The version that serves has another profile than the one it was learned from.
            Nothing was changed.
        RegistryError: There is no version yet, or the registry cannot be written. What served
            before still does.
    """
    step = on_step or ignore_step
    layout = VersionLayout(registry, model)
    if not layout.root.is_dir():
        raise RegistryError(
            f"no version of {model} was promoted into {registry}, so there is none that a profile "
            "could join; write the profile to a file and give it to watch(..., profile=...): "
            "--output FILE"
        )
    try:
        step("lock")
        with locked(layout):
            remove_partial(layout)
            before = open_version(registry, model)
            serving = CalibrationProfile.load(before.profile_path)
            learned_from = profile.reference.learned_from
            if serving.reference.learned_from == learned_from or serving.digest == profile.digest:
                return promoted_version(before)
            if serving.digest != learned_from:
                raise RefusedError(
                    f"version {before.id} of {model} serves with profile {serving.digest[:12]}, "
                    f"but the reference was learned under {learned_from[:12]}; wait until random "
                    "units were observed under the version that serves. Nothing was changed"
                )
            version = _publish(layout, before, profile, step)
            switch_to(layout, version, step)
            step("done")
    except OSError as error:
        if isinstance(error, RegistryError):
            raise
        raise RegistryError(
            f"the version cannot be written to {layout.root} ({error.strerror or error}); what "
            "served before still does: make room or correct the permissions, and learn again"
        ) from error
    return promoted_version(version)


def _publish(
    layout: VersionLayout, before: Version, profile: CalibrationProfile, step: StepCallback
) -> Version:
    number = next_number(layout)
    return seal_version(
        layout, number, lambda partial: _write(partial, number, before, profile, step), step
    )


def _write(
    partial: Path, number: int, before: Version, profile: CalibrationProfile, step: StepCallback
) -> dict[str, Any]:
    files: dict[str, dict[str, Any]] = {}
    # The same model serves, and the same report is about it.
    for name in sorted(before.manifest["files"].keys() - {PROFILE_FILE}):
        step(f"copy {name}")
        digest = str(before.manifest["files"][name]["sha256"])
        size = copy_verified(before.path / name, partial / name, digest)
        files[name] = {"sha256": digest, "bytes": size}
    step(f"write {PROFILE_FILE}")
    files[PROFILE_FILE] = write_file(partial / PROFILE_FILE, profile.to_json().encode())
    origin = profile.reference
    changed = {
        "format": FORMAT,
        "number": number,
        "created": utc_now(),
        "parent": before.id,
        "profile": profile.digest,
        "fingerprint": {
            **before.manifest.get("fingerprint", {}),
            "data": profile.fingerprint.data,
        },
        "reference": {
            "source": str(origin.source),
            "learned_from": origin.learned_from,
            "units": profile.units,
            "began": origin.began,
            "ended": origin.ended,
        },
        "files": files,
    }
    return {**before.manifest, **changed}
