"""What all tests need of the process that runs them."""

import os
import signal
from collections.abc import Callable

import pytest

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
