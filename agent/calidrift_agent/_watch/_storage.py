"""Where windows go: the state file, or nowhere while there is none."""

import time
from pathlib import Path
from typing import Final, final

from calidrift_agent._capture import CaptureOptions, CaptureWriter
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._state import (
    StateMeta,
    StateWriter,
    SweepOptions,
    Window,
    WindowBuffer,
    sweep,
)
from calidrift_agent._taps import Ledger
from calidrift_agent._vocabulary import DropReason, Stage
from calidrift_agent.errors import ConfigurationError, StateError, StateSpaceError

KILL_FILE = "DISABLED"
"""A file of this name in the state directory switches every watch off that uses it, for good:
once it is gone, new watches and restarted workers observe again, those that it stopped do not."""
_SWEEP_SECONDS: Final = 60.0
"""Pause between two sweeps of a state directory."""


@final
class Storage:
    """The files of one watch in one process; used under the engine's lock.

    Args:
        directory: State directory; None for in memory only.
        profile: Saved beside the state files, under its digest.
        capture: Limits of captures; None for none.
        ledger: Where errors and drops go.
    """

    def __init__(
        self,
        directory: Path | None,
        profile: CalibrationProfile | None,
        capture: CaptureOptions | None,
        ledger: Ledger,
    ) -> None:
        self._directory = directory
        self._profile = profile
        self._capture_options = capture
        self._ledger = ledger
        self._writer: StateWriter | None = None
        self._memory_only = directory is None
        self._written = time.monotonic()
        self._next_sweep = 0.0
        self.captures: CaptureWriter | None = None

    @property
    def path(self) -> Path | None:
        """The state file, or None while there is none."""
        return None if self._writer is None else self._writer.path

    @property
    def profile(self) -> CalibrationProfile | None:
        """The calibration profile in force."""
        return self._profile

    def open(self, meta: StateMeta, *, strict: bool, sweeping: bool = False) -> None:
        """Create the files of this process.

        A full disk is no error: the watch goes on in memory, and what it could not keep is
        counted.

        Args:
            meta: Identity of this process.
            sweeping: Whether files of dead processes make room for it, before their time.
            strict: Whether a directory that cannot be used at all is an error; in a forked child
                it is counted, as a full disk is.

        Raises:
            ConfigurationError: The directory cannot be used at all, and `strict` is set.
        """
        if self._directory is None:
            return
        try:
            self._writer = _create(self._directory, meta, sweeping=sweeping)
        except (StateSpaceError, ConfigurationError) as error:
            if strict and isinstance(error, ConfigurationError):
                raise
            self._lose(error)
        self._save_profile()
        if self._capture_options is not None:
            self.captures = CaptureWriter(
                self._directory / "captures" / meta.process,
                meta.model,
                meta.profile,
                tuple(point.name for point in meta.points),
                self._capture_options,
            )

    @property
    def age_seconds(self) -> float | None:
        """Time since the state file was written; None while there is none."""
        return None if self._writer is None else time.monotonic() - self._written

    @property
    def kill_file(self) -> Path | None:
        """Path of the file that switches the watch off; None for in memory only."""
        return None if self._directory is None else self._directory / KILL_FILE

    @property
    def killed(self) -> bool:
        """Whether the kill file is there (a `stat`, 2 us); not where that cannot be told."""
        if self._directory is None:
            return False
        try:
            return (self._directory / KILL_FILE).exists()
        except OSError:
            return False  # a directory that was closed to this user: writing to it will tell

    def write_open(self, buffer: WindowBuffer) -> None:
        """Write the open window as it stands."""
        if self._writer is None:
            return
        try:
            self._writer.write_open(buffer, time.time_ns())
            self._written = time.monotonic()
        except Exception as error:
            self._lose(error)

    def write_closed(self, window: Window, total: Window) -> None:
        """Write a closed window, and the sum of all closed ones."""
        if self._writer is None:
            if not self._memory_only:
                self._ledger.dropped(DropReason.STATE_UNAVAILABLE)
            return
        try:
            if not self._writer.path.exists():
                raise StateError(f"state file {self._writer.path} was removed while in use")
            self._writer.write_closed(window)
            self._writer.write_cumulative(total)
            self._written = time.monotonic()
        except Exception as error:
            self._lose(error)

    def sweep(self, retention_seconds: float | None) -> None:
        """Merge and remove the files of dead processes, at most once a minute over all workers.

        Args:
            retention_seconds: How long they stay; None for ever.
        """
        now = time.monotonic()
        folder = self._directory
        if folder is None or retention_seconds is None or now < self._next_sweep:
            return
        self._next_sweep = now + _SWEEP_SECONDS
        try:
            options = SweepOptions(retention_seconds=retention_seconds)
            sweep(folder, options, pause_seconds=_SWEEP_SECONDS)
        except Exception as error:
            self._ledger.failed(Stage.STATE, error)

    def tidy(self) -> None:
        """Delete captures that have reached their time to live, a bounded number per call."""
        if self.captures is None:
            return
        try:
            self.captures.tidy()
        except Exception as error:
            self._ledger.failed(Stage.CAPTURE, error)

    def close(self) -> None:
        """Release the files; what was written stays for readers. Nothing is written any more."""
        self._memory_only = True
        captures, self.captures = self.captures, None
        if captures is not None:
            try:
                captures.flush()
            except Exception as error:
                self._ledger.failed(Stage.CAPTURE, error)
            captures.release()
        self._release()

    def abandon(self) -> None:
        """Forget the files of the process that this one was forked from, touching nothing."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abandon()
        captures, self.captures = self.captures, None
        if captures is not None:
            captures.release()

    def _lose(self, error: Exception) -> None:
        self._ledger.failed(Stage.STATE, error)
        self._ledger.dropped(DropReason.STATE_UNAVAILABLE)
        self._release()

    def _release(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _save_profile(self) -> None:
        if self._profile is None or self._directory is None:
            return
        folder = self._directory / "profiles"
        path = folder / f"{self._profile.digest}.json"
        try:
            if not path.exists():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._profile.save(path)
        except Exception as error:
            self._ledger.failed(Stage.STATE, error)


def _create(directory: Path, meta: StateMeta, *, sweeping: bool) -> StateWriter:
    try:
        return StateWriter.create(directory, meta)
    except StateSpaceError:
        if not sweeping:
            raise
        sweep(directory, SweepOptions(retention_seconds=0.0))
        return StateWriter.create(directory, meta)
