"""Child processes of a run with the real servers; none of them outlives it."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar, final

from calidrift_analyzer.config import process_variables
from calidrift_analyzer.errors import ChildError, RefusedError, ToolchainError

__all__ = ["ALERTMANAGER", "PROMETHEUS", "Programs", "program"]

PROMETHEUS: Final = "prometheus"
ALERTMANAGER: Final = "prometheus-alertmanager"

_T = TypeVar("_T")
_NAMES: Final = {PROMETHEUS: (PROMETHEUS,), ALERTMANAGER: (ALERTMANAGER, "alertmanager")}
_KEPT: Final = frozenset({"CALIDRIFT_DISABLED", "CALIDRIFT_STRICT"})
_GRACE_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.1
_TAIL_LINES: Final = 15
_NOT_YET: Final = (OSError, ValueError, LookupError)
"""What a program that is not there yet, or has no data yet, makes of a question."""


def program(name: str) -> str:
    """Find a program of the system.

    Args:
        name: `PROMETHEUS` or `ALERTMANAGER`.

    Raises:
        ToolchainError: It is not installed.
    """
    path = process_variables().get("PATH")
    for one in _NAMES[name]:
        found = shutil.which(one, path=path)
        if found is not None:
            return found
    raise ToolchainError(
        f"there is no {name} on this machine, and this demo runs the real one; install both "
        f"servers (Debian: apt-get install {PROMETHEUS} {ALERTMANAGER}), or run 'calidrift demo', "
        "which needs neither"
    )


@final
class Programs:
    """Starts programs, waits for them, and ends them.

    Args:
        logs: Folder for what they write.
        limit_seconds: Nothing is waited for beyond this time from now.
    """

    def __init__(self, logs: Path, limit_seconds: float) -> None:
        self._logs = logs
        self._end_by = time.monotonic() + limit_seconds
        self._limit = limit_seconds
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        variables = process_variables()
        # Settings of the machine's environment are for its own services, not for the demo's.
        self._variables = {
            name: value
            for name, value in variables.items()
            if not name.startswith("CALIDRIFT_") or name in _KEPT
        }
        # Where this process is killed outright, the kernel ends what it started.
        tied = shutil.which("setpriv", path=variables.get("PATH"))
        self._tied = (tied, "--pdeathsig", "TERM", "--") if tied else ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def start(self, name: str, *words: str | Path, folder: Path | None = None) -> None:
        """Start one; what it writes goes into its log.

        Args:
            name: How it is called here.
            words: Program and arguments.
            folder: Where it works.
        """
        with self._log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(
                [*self._tied, *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**self._variables, "OMP_NUM_THREADS": "1"},
                # Ctrl-C comes to this process alone, which ends the others in their order.
                start_new_session=True,
            )

    def address(self, name: str, said: str, seconds: float) -> str:
        """Wait until a program says where it listens.

        Args:
            name: The program.
            said: Regular expression over its log; its group is host and port, or a URL.
            seconds: How long to wait.
        """
        pattern = re.compile(said)

        def look() -> str | None:
            found = pattern.search(self._log(name).read_text(encoding="utf-8", errors="replace"))
            return None if found is None else "http://" + found[1].removeprefix("http://")

        return self.wait(f"{name} says where it listens", look, seconds)

    def wait(self, what: str, look: Callable[[], _T | None], seconds: float) -> _T:
        """Look again and again until there is something.

        Args:
            what: What is waited for, in words.
            look: Gives it, or None, or raises where nothing answers yet.
            seconds: How long to wait; never beyond the limit of the run.

        Raises:
            ChildError: A program has ended.
            RefusedError: It did not come in time.
        """
        until = min(time.monotonic() + seconds, self._end_by)
        last = ""
        while True:
            try:
                found = look()
            except _NOT_YET as error:
                found, last = None, f" (the last answer: {error})"
            if found is not None:
                return found
            self.require_alive()
            if time.monotonic() > until:
                over = self._end_by <= time.monotonic()
                why = f"the {self._limit:g} s of the run" if over else f"{seconds:g} s"
                raise RefusedError(
                    f"{why} were over before this was seen: {what}{last}; what the programs wrote "
                    f"is in {self._logs}"
                )
            time.sleep(_POLL_SECONDS)

    def require_alive(self) -> None:
        """Check that every program runs.

        Raises:
            ChildError: One has ended; the end of its log is attached as a note.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                error = ChildError(
                    f"{name} ended with status {process.returncode} while it was needed; what it "
                    f"wrote is in {self._log(name)}"
                )
                error.add_note(self._tail(name))
                raise error

    def end(self) -> dict[str, int]:
        """End every program that runs, the last one first, and wait for it.

        Returns:
            The exit status of each.
        """
        ended = {}
        for name, process in reversed(list(self._running.items())):
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            ended[name] = process.returncode
            del self._running[name]
        return ended

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _tail(self, name: str) -> str:
        text = self._log(name).read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-_TAIL_LINES:])
