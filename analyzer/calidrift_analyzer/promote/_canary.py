"""A version on one replica first: named beside what serves, then in its place, or taken out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._registry import (
    PROFILE_FILE,
    Pointer,
    Version,
    VersionLayout,
    open_version,
    read_pointer,
)
from calidrift_agent.errors import RegistryError
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.promote._files import locked, switch
from calidrift_analyzer.promote._promote import require_accepted, write_version
from calidrift_analyzer.promote._steps import (
    StepCallback,
    ignore_step,
    pointer_to,
    promoted_version,
    switch_to,
)
from calidrift_analyzer.records import Candidate, PromotedVersion, ValidationReport

__all__ = ["complete", "stage", "withdraw"]


def stage(
    candidate: Candidate,
    report: ValidationReport,
    registry: str | PathLike[str],
    model: str,
    *,
    known: str | None = None,
    on_step: StepCallback | None = None,
) -> PromotedVersion:
    """Let replicas that are marked as canaries serve a candidate; all others serve what they did.

    The version is written and verified as `promote` does, and named as the canary by the same
    rename. Where the canary is exactly this candidate already, nothing is changed. A promotion or
    rollback of anybody ends it.

    Args:
        candidate: What validation measured.
        report: What it found; it must have passed and be about exactly these files.
        registry: The registry's folder.
        model: Name of the model.
        known: The version that an earlier call has written of it and not named; it is named, and
            not written again.
        on_step: Told of every step.

    Returns:
        The version that canaries serve from now on.

    Raises:
        RefusedError: The report did not pass or is about another candidate, nothing serves that it
            could be compared with, or what serves has the same profile. Nothing was changed.
        RegistryError: The registry cannot be written, or another promotion does not end. What
            served before still does.
    """
    step = on_step or ignore_step
    require_accepted(candidate, report, model)
    layout = VersionLayout(registry, model)
    with _moving(layout, step):
        before = _serving(layout)
        tried = _opened(layout, before.canary)
        if tried is not None and _is(tried, candidate):
            return promoted_version(tried)
        serving = open_version(registry, model, before.version)
        _require_other_profile(serving, candidate)
        if known is None:
            version = write_version(layout, candidate, report, step)
        else:
            version = open_version(registry, model, known)
        step("switch")
        switch(layout, replace(before, canary=pointer_to(version)))
        step("done")
    return promoted_version(version)


def complete(
    registry: str | PathLike[str],
    model: str,
    version: str,
    *,
    on_step: StepCallback | None = None,
) -> PromotedVersion:
    """Let the canary serve everywhere: the same switch as a promotion.

    Where it serves everywhere already, nothing is changed.

    Args:
        registry: The registry's folder.
        model: Name of the model.
        version: The canary.
        on_step: Told of every step.

    Returns:
        The version that serves from now on.

    Raises:
        RefusedError: It is no longer the canary: somebody promoted, rolled back or withdrew it.
        RegistryError: The registry cannot be written, or the version is damaged. What served
            before still does.
    """
    step = on_step or ignore_step
    layout = VersionLayout(registry, model)
    with _moving(layout, step):
        found = open_version(registry, model, version)
        pointer = _serving(layout)
        if pointer.version != version:
            if pointer.canary is None or pointer.canary.version != version:
                raise RefusedError(
                    f"{version} of {model} is no longer tried on canaries: somebody promoted, "
                    "rolled back or withdrew it meanwhile. Nothing was changed"
                )
            switch_to(layout, found, step)
        step("done")
    return promoted_version(found)


def withdraw(
    registry: str | PathLike[str],
    model: str,
    version: str,
    *,
    on_step: StepCallback | None = None,
) -> bool:
    """Let canaries serve what all others serve.

    Args:
        registry: The registry's folder.
        model: Name of the model.
        version: The canary; where it is none any more, nothing is changed.
        on_step: Told of every step.

    Returns:
        Whether it was one.

    Raises:
        RegistryError: The registry cannot be written. What served before still does.
    """
    step = on_step or ignore_step
    layout = VersionLayout(registry, model)
    with _moving(layout, step):
        pointer = _serving(layout)
        tried = pointer.canary is not None and pointer.canary.version == version
        if tried:
            step("switch")
            switch(layout, replace(pointer, canary=None))
        step("done")
    return tried


@contextmanager
def _moving(layout: VersionLayout, step: StepCallback) -> Iterator[None]:
    """Hold the registry, and turn a disk that fails into one kind of error."""
    if not layout.root.is_dir():
        raise RefusedError(_nothing(layout))
    try:
        step("lock")
        with locked(layout):
            yield
    except OSError as error:
        if isinstance(error, RegistryError):
            raise
        raise RegistryError(
            f"{layout.root} cannot be written ({error.strerror or error}); what served before "
            "still does: make room or correct the permissions"
        ) from error


def _serving(layout: VersionLayout) -> Pointer:
    pointer = read_pointer(layout)
    if pointer is None:
        raise RefusedError(_nothing(layout))
    return pointer


def _nothing(layout: VersionLayout) -> str:
    return (
        f"no version of {layout.model} serves in {layout.root.parent}, so there is nothing that a "
        "canary could be compared with; promote the first one. Nothing was changed"
    )


def _opened(layout: VersionLayout, pointer: Pointer | None) -> Version | None:
    """Open a canary; a damaged one counts as none, and is replaced."""
    if pointer is None:
        return None
    try:
        return open_version(layout.root.parent, layout.model, pointer.version)
    except RegistryError:
        return None


def _is(version: Version, candidate: Candidate) -> bool:
    files = version.manifest["files"]
    return all(files.get(name, {}).get("sha256") == one for name, one in candidate.files.items())


def _require_other_profile(serving: Version, candidate: Candidate) -> None:
    digest = CalibrationProfile.load(candidate.path / PROFILE_FILE).digest
    if digest == serving.manifest.get("profile"):
        raise RefusedError(
            f"{candidate.id} and {serving.id}, which serves, have the same profile "
            f"{digest[:12]}, so the windows of a canary could not be told from those of its "
            "peers; promote it without a canary. Nothing was changed"
        )
