"""Collect: bring what agents have written into the store, each window exactly once."""

import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._state import StateReader, scan
from calidrift_agent.errors import ProfileError, StateError
from calidrift_analyzer.collect._captures import collect_captures
from calidrift_analyzer.collect._report import CollectReport, Tally
from calidrift_analyzer.collect._windows import collect_windows
from calidrift_analyzer.store import Store

__all__ = ["collect"]

_PROFILES: Final = "profiles"


def collect(state_dirs: Iterable[Path], store: Store) -> CollectReport:
    """Read the state directories of agents once.

    May be repeated, and may be killed between any two steps: a window that is in the store is left
    out, one that is not is read again. Windows that an agent overwrote before this run came arrive
    summed, as one COARSE window, so no count is lost. The last, open window of a process counts
    once the process is dead. Nothing in the directories is changed.

    A file or directory that cannot be read is named in the report, and the rest goes on.

    Args:
        state_dirs: The directories; one that does not exist (yet) is named in the report.
        store: Where to.

    Returns:
        What was new, and what could not be read.

    Raises:
        StoreError: The database failed; run it again.
    """
    tally = Tally()
    batch = store.next_batch()
    for folder in dict.fromkeys(path.resolve() for path in state_dirs):
        _require_listable(folder, tally)
        _collect_profiles(folder / _PROFILES, store, tally)
        with ExitStack() as opened:
            for reader in _readers(folder, tally, opened):
                collect_windows(reader, store, batch, tally)
        collect_captures(folder, store, tally)
    return tally.report()


def _require_listable(folder: Path, tally: Tally) -> None:
    """Note a directory that cannot be listed: `Path.glob` finds it empty and says nothing."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        tally.skip(
            folder,
            f"this state directory cannot be listed ({error.strerror}); check state_dirs, that "
            "the service has started, and that this user may read it",
        )


def _readers(folder: Path, tally: Tally, opened: ExitStack) -> list[StateReader]:
    try:
        return [opened.enter_context(reader) for reader in scan(folder, tally.skip)]
    except StateError as error:
        tally.skip(folder, error)
        return []


def _collect_profiles(folder: Path, store: Store, tally: Tally) -> None:
    known = set(store.profile_digests())
    for path in sorted(folder.glob("[!.]*.json")):
        if path.stem in known:
            continue
        try:
            profile = CalibrationProfile.load(path)
        except ProfileError as error:
            tally.skip(path, error)
            continue
        if profile.digest != path.stem:
            tally.skip(
                path,
                f"the file holds profile {profile.digest[:12]}, but its name says "
                f"{path.stem[:12]}; give it the name <digest>.json",
            )
            continue
        store.put_profile(profile)
        tally.profiles += 1
