"""Runs one command line: builds the application, and turns every outcome into an exit status.

| status | meaning |
|---|---|
| 0 | done |
| 1 | refused by a gate; nothing was changed |
| 2 | usage or configuration error |
| 3 | internal error |
| 130, 141, 143 | ended by Ctrl-C, by a reader that closed the pipe, by SIGTERM |
"""

import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from calidrift_agent._command_line._application import UsageError, dispatch
from calidrift_agent._command_line._invocation import Invocation, PipeClosedError
from calidrift_agent._command_line._table import CommandTable, joined
from calidrift_agent._vocabulary import ExitCode
from calidrift_agent.errors import CalidriftError, ConfigurationError

__all__ = ["main", "run"]

_PIPE_CLOSED = 128 + signal.SIGPIPE
_INTERRUPTED = 128 + signal.SIGINT
_TERMINATED = 128 + signal.SIGTERM


class _TerminatedError(BaseException):
    """SIGTERM arrived: unwind, so that children are ended and temporary files removed."""


def main() -> NoReturn:
    """Run the command line of this process and exit with its status."""
    if "--debug" not in sys.argv and not sys.warnoptions:
        # Libraries warn developers, not operators; `--debug` or `python -W` shows it.
        warnings.simplefilter("ignore")
    _open_missing_streams()
    signal.signal(signal.SIGTERM, _raise_terminated)
    status = run(sys.argv[1:])
    if status == _PIPE_CLOSED:
        # Nobody reads any more: keep the interpreter from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _open_missing_streams() -> None:
    """Open what the shell closed (`>&-`), for Python has no stream there and any write fails.

    It also keeps the descriptors 0 to 2 from being given to the next file that is opened.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8"))


def run(arguments: Sequence[str], table: CommandTable | None = None) -> int:
    """Run a command line inside this process.

    Args:
        arguments: The words after `calidrift`.
        table: The commands; those of the installed packages where not given.

    Returns:
        The exit status; errors have been told on standard error in one sentence (with `--json`
        also as `{"error": ...}` on standard output), with `--debug` below their traceback.
    """
    words = list(arguments)
    options = words[: words.index("--")] if "--" in words else words
    invocation = Invocation(json="--json" in options, debug="--debug" in options)
    with _logging(invocation.debug), invocation:
        try:
            status = dispatch(words or ["--help"], table or joined(), invocation)
            sys.stdout.flush()
        except (PipeClosedError, BrokenPipeError):
            return _PIPE_CLOSED
        except _TerminatedError:
            return _tell(invocation, _TERMINATED, "Terminated", "ended by SIGTERM")
        except KeyboardInterrupt:
            return _tell(invocation, _INTERRUPTED, "Interrupted", "interrupted")
        except Exception as error:
            if invocation.debug:
                with suppress(OSError):
                    traceback.print_exception(error, file=sys.stderr)
            status, sentence = _explained(error)
            return _tell(invocation, status, type(error).__name__, sentence)
    return status


def _explained(error: Exception) -> tuple[int, str]:
    """Give the exit status of an error and the sentence for people."""
    if isinstance(error, UsageError | CalidriftError):
        return int(error.exit_code), " ".join(str(error).split())
    told = " ".join(str(error).split()) or "no message"
    return int(ExitCode.INTERNAL), (
        f"internal error: {type(error).__name__}: {told}; run it again with --debug for the "
        "traceback and report it"
    )


def _tell(invocation: Invocation, status: int, kind: str, sentence: str) -> int:
    """Tell an outcome on standard error, and as the JSON document where none was written."""
    with suppress(OSError):  # standard error may be the pipe whose reader went away
        sys.stderr.write(f"calidrift: {sentence}\n")
        sys.stderr.flush()
    if not invocation.emitted:
        with suppress(PipeClosedError, ConfigurationError):  # it was told on standard error
            invocation.emit({"error": {"kind": kind, "message": sentence, "exit_code": status}})
    return status


@contextmanager
def _logging(debug: bool) -> Iterator[None]:
    """Send the log to standard error while a command runs, and leave logging as it was."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(
            "%(asctime)s %(levelname)s %(name)s: %(message)s" if debug else "calidrift: %(message)s"
        )
    )
    loggers = [logging.getLogger(name) for name in ("calidrift_agent", "calidrift_analyzer")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def _raise_terminated(signum: int, frame: FrameType | None) -> Any:
    raise _TerminatedError
