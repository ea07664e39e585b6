"""The parent's side of the child process in which user code runs."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from calidrift_analyzer import errors
from calidrift_analyzer.config import process_variables
from calidrift_analyzer.errors import CalidriftError, ChildError

__all__ = ["Progress", "run_in_child"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are finished, and of how many."""

_CHILD: Final = "calidrift_analyzer.contract._child"
_ANSWER: Final = "answer.json"
_GRACE_SECONDS: Final = 5.0
_TAIL_LINES: Final = 40


def run_in_child(
    job: str,
    request: Mapping[str, Any],
    *,
    progress: Progress | None = None,
    scratch: Sequence[Path] = (),
) -> dict[str, Any]:
    """Run a job in a fresh process, where user code and torchao may do what they like.

    Args:
        job: The function to run, `package.module:function`; it takes the request and a progress
            callback and returns a JSON object.
        request: JSON object for the job.
        progress: Called in this process for every step that the job reports.
        scratch: Folders that the caller removes when this returns. Where this process is killed
            meanwhile, the child removes them.

    Returns:
        What the job returned.

    Raises:
        CalidriftError: Whatever the job raised on purpose, with its message and type.
        ChildError: The child died, was killed, or failed by a defect. The end of what it wrote to
            stderr is attached as a note and shown by `--debug`.

    The child ends with this process, however that ends: it watches its standard input.
    """
    with tempfile.TemporaryDirectory(prefix="calidrift-") as name:
        folder = Path(name)
        (folder / "request.json").write_text(
            json.dumps({"job": job, "request": request, "scratch": [str(one) for one in scratch]}),
            encoding="utf-8",
        )
        with (folder / "stderr.txt").open("wb") as stderr:
            child = subprocess.Popen(
                [sys.executable, "-m", _CHILD, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                # torchao looks for CUDA extensions that a CPU build does not have.
                env={**process_variables(), "TORCHAO_FORCE_SKIP_LOADING_SO_FILES": "1"},
            )
            try:
                assert child.stdout is not None
                _follow(child.stdout, progress)
                _wait(child, folder)
            finally:
                _end(child)
        return _answer(folder, child.returncode, job)


def _follow(stdout: IO[bytes], progress: Progress | None) -> None:
    for line in stdout:
        try:
            what, done, total = json.loads(line)
        except ValueError:
            continue
        if progress is not None:
            progress(str(what), int(done), int(total))


def _wait(child: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for a child that has closed its side; one that has answered need not tidy up."""
    if (folder / _ANSWER).exists():
        child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=_GRACE_SECONDS)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leave no process behind, whatever happened here (Ctrl-C included)."""
    if child.poll() is None:
        child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


def _answer(folder: Path, status: int, job: str) -> dict[str, Any]:
    try:
        answer = json.loads((folder / _ANSWER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        answer = {}
    if isinstance(answer.get("result"), dict):
        result: dict[str, Any] = answer["result"]
        return result
    raise _failure(answer, status, job, _tail(folder / "stderr.txt"))


def _failure(answer: dict[str, Any], status: int, job: str, tail: str) -> CalidriftError:
    error = answer.get("error")
    if isinstance(error, dict):
        kind = getattr(errors, str(error.get("type")), ChildError)
        failure: CalidriftError = kind(str(error.get("message")))
    elif answer:
        failure = ChildError(f"{job} answered with something else than a JSON object")
    elif status < 0:
        failure = ChildError(
            f"the child process that ran the model's code was killed by {_signal(-status)}; if the "
            "machine ran out of memory, use smaller batches or a smaller calibration set"
        )
    else:
        failure = ChildError(
            f"the child process that ran the model's code ended with status {status} without an "
            "answer; the model's code must not end the process"
        )
    failure.add_note(f"The child that ran {job} wrote last:\n{tail or '(nothing)'}")
    return failure


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tail(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_TAIL_LINES:])
