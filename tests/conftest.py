"""What all tests need of the process that runs them."""

import io
import json
import math
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec import AbstractFileSystem

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


class FaultyFileSystem(AbstractFileSystem):
    """A store of fsspec whose calls can be made to fail.

    Attributes:
        objects: What is stored.
        calls: The calls so far.
        fail_at: Counts down the calls until one fails, and where `stays_down` all behind it; a file
            that is sent meanwhile arrives half.
        after: Called with the path after each write.
    """

    protocol = "faulty"
    root_marker = "/"
    cachable = False
    objects: ClassVar[dict[str, bytes]] = {}
    calls: ClassVar[list[str]] = []
    fail_at: ClassVar[float] = math.inf
    stays_down: ClassVar[bool] = False
    after: ClassVar[Callable[[str], object]] = staticmethod(lambda path: None)

    @classmethod
    def reset(cls) -> None:
        """Begin with an empty store that never fails."""
        cls.objects, cls.calls, cls.fail_at, cls.stays_down = {}, [], math.inf, False
        cls.after = staticmethod(lambda path: None)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("faulty://").strip("/")

    def _called(self, call: str, path: str) -> bool:
        kind = type(self)
        kind.calls.append(f"{call} {path}")
        kind.fail_at -= 1
        return kind.fail_at == 0 or (kind.fail_at < 0 and kind.stays_down)

    def _read(self, call: str, path: str) -> bytes:
        if self._called(call, path):
            raise ConnectionError("the store hung up")
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path]

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        return self._read("read", path)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return {"name": path, "type": "file", "size": len(self._read("info", path))}

    def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        assert mode == "rb"
        return io.BytesIO(self._read("open", path))

    def put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        content = Path(lpath).read_bytes()
        failed = self._called("send", rpath)
        self.objects[rpath] = content[: len(content) // 2] if failed else content
        if failed:
            raise ConnectionError("the store hung up")
        type(self).after(rpath)

    def pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:
        if self._called("send", path):  # one small object arrives as a whole or not at all
            raise ConnectionError("the store hung up")
        self.objects[path] = value
        type(self).after(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        pass


@pytest.fixture
def faulty() -> Iterator[type[FaultyFileSystem]]:
    """Gives a store at `faulty://` whose calls can be made to fail; empty at first."""
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    FaultyFileSystem.reset()
    yield FaultyFileSystem
    FaultyFileSystem.reset()
