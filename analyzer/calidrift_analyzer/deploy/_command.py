"""A hook that is a command: its own process group, no shell, a bounded time."""

import os
import signal
import subprocess
import threading
from contextlib import suppress
from typing import IO, Final, final

from calidrift_analyzer.config import ModelContract, process_variables
from calidrift_analyzer.deploy._halt import Halt
from calidrift_analyzer.deploy._hook import HookResult, fields, tail
from calidrift_analyzer.records import DeploymentRow

__all__ = ["run_command"]

_TRY_AGAIN: Final = 75  # EX_TEMPFAIL of sysexits.h
_GRACE_SECONDS: Final = 5.0
_READ_SECONDS: Final = 2.0
_KEPT: Final = 65_536
_SECRETS: Final = frozenset(
    {"CALIDRIFT_TOKENS", "CALIDRIFT_GRAFANA_TOKEN", "CALIDRIFT_CAPTURE_KEYS"}
)
"""Variables of the analyzer that a hook has no business with."""


def run_command(contract: ModelContract, row: DeploymentRow, halt: Halt) -> HookResult:
    """Run the command once, in the folder of the configuration file.

    Whatever it leaves behind in its process group is ended with it.

    Args:
        contract: The model, with a command to run.
        row: The move; reaches the command by variables alone.
        halt: Ends the command where the service ends.
    """
    deploy = contract.deploy
    assert deploy is not None
    told = {f"CALIDRIFT_{name.upper()}": value for name, value in fields(contract, row).items()}
    kept = {name: value for name, value in process_variables().items() if name not in _SECRETS}
    shown = deploy.command[0]
    try:
        child = subprocess.Popen(
            list(deploy.command),
            cwd=contract.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**kept, **told},
            start_new_session=True,
        )
    except OSError as error:
        sentence = f"the command {shown!r} cannot be started ({error.strerror})"
        return HookResult(done=False, again=False, sentence=sentence)
    group = _Group(child)
    with halt.ending(group.end, group.end_now):
        output, overdue = group.finish(deploy.timeout_seconds)
    status = child.returncode
    if overdue:
        sentence = (
            f"the command {shown!r} did not end within {deploy.timeout_seconds:g} seconds; it was "
            "ended with everything that it had started"
        )
    elif status < 0:
        sentence = f"the command {shown!r} was ended by {_signal(-status)}"
    elif status:
        sentence = f"the command {shown!r} ended with status {status}"
    else:
        sentence = f"the command {shown!r} ended with status 0"
    again = status == _TRY_AGAIN and not overdue
    done = status == 0 and not overdue
    return HookResult(done=done, again=again, sentence=sentence, output=output)


@final
class _Group:
    """A child with its process group; the group's number is its own until the child is reaped."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._lock = threading.Lock()
        self._reaped = False
        self._overdue = False
        self._kill: threading.Timer | None = None
        self._output = bytearray()

    def finish(self, seconds: float) -> tuple[str, bool]:
        """Wait for the child, for so long at most, and end what it leaves.

        Returns:
            The end of its output, and whether its time was over.
        """
        assert self._child.stdout is not None
        reader = threading.Thread(target=self._read, args=(self._child.stdout,), daemon=True)
        timer = threading.Timer(seconds, self._time_is_over)
        timer.daemon = True
        reader.start()
        timer.start()
        try:
            # Not reaped yet: meanwhile nobody else can get the number of its group.
            os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
        finally:
            timer.cancel()
            with self._lock:
                self._signal(signal.SIGKILL)
                if self._kill is not None:
                    self._kill.cancel()
                self._child.wait()
                self._reaped = True
        # One that left the group may hold the pipe for ever: it is not waited for.
        reader.join(_READ_SECONDS)
        return tail(bytes(self._output)), self._overdue

    def end(self) -> None:
        """Ask the group to end, and end it a while later."""
        with self._lock:
            self._signal(signal.SIGTERM)
            if not self._reaped and self._kill is None:
                self._kill = threading.Timer(_GRACE_SECONDS, self.end_now)
                self._kill.daemon = True
                self._kill.start()

    def end_now(self) -> None:
        """End the group, whatever it does against it."""
        with self._lock:
            self._signal(signal.SIGKILL)

    def _time_is_over(self) -> None:
        self._overdue = True
        self.end()

    def _signal(self, number: signal.Signals) -> None:
        if not self._reaped:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, number)

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe, suppress(OSError):
            while chunk := os.read(pipe.fileno(), _KEPT):
                self._output += chunk
                del self._output[:-_KEPT]


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
