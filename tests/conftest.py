"""What all tests need of the process that runs them."""

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import pytest

Answering = tuple["subprocess.Popen[str]", str]
"""A process that answers HTTP, and its address."""

# A shell that starts the tests in the background has them ignore SIGINT, and every process that
# they start would inherit that: what Ctrl-C does could not be tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def unmeasured() -> Callable[[], dict[str, str]]:
    """Returns the environment for a process that is killed on purpose: it measures no coverage.

    One that is killed while it writes down what it measured leaves a damaged file, and with it no
    report of the whole run.
    """
    return lambda: {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }


@pytest.fixture(scope="session")
def needed() -> Callable[[str, str], str]:
    """Returns what gives the path of a program, by its name and Debian's name of its package.

    Where it is missing the test is skipped with that reason, or fails where system tests must run.
    """

    def path_of(program: str, package: str) -> str:
        path = shutil.which(program)
        if path is None:
            reason = f"{program} is not installed (Debian: apt-get install {package})"
            if os.environ.get("CALIDRIFT_REQUIRE_SYSTEM") == "1":
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return path_of


@pytest.fixture(scope="session")
def answering() -> Callable[..., AbstractContextManager[Answering]]:
    """Returns what runs a command that prints a document with its `url` when it answers.

    It is killed at the end, or when `limit` seconds are over.
    """

    @contextmanager
    def run(
        words: Sequence[str], *, limit: float, env: Mapping[str, str] | None = None
    ) -> Iterator[Answering]:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        assert process.stdout is not None and process.stderr is not None
        watchdog = threading.Timer(limit, process.kill)
        watchdog.start()
        try:
            text = ""
            while not text.rstrip().endswith("}"):
                line = process.stdout.readline()
                assert line, process.stderr.read()
                text += line
            yield process, json.loads(text)["url"]
        finally:
            watchdog.cancel()
            process.kill()
            process.communicate()

    return run
