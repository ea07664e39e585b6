"""Requests to the demo's service: at a steady rate, each answer checked."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, final
from urllib.parse import urlsplit

from calidrift_analyzer.demo._data import Condition
from calidrift_analyzer.demo._traffic import Traffic

__all__ = ["Load", "Served"]

_THREADS: Final = 2
_TIMEOUT_SECONDS: Final = 30.0
_LOSSES_TOLD: Final = 5
_OK: Final = 200


@final
@dataclass(frozen=True, slots=True)
class Served:
    """What clients got.

    Attributes:
        requests: How many were sent.
        lost: How many had no good answer.
        loss: What the first of these got instead.
        answers: Good answers by version.
        first_ns: When the first answer of each version came, UTC.
        newest: Version of the newest answer; empty before.
        slowest_seconds: The slowest answer.
    """

    requests: int
    lost: int
    loss: tuple[str, ...]
    answers: dict[str, int]
    first_ns: dict[str, int]
    newest: str
    slowest_seconds: float


@final
class Load:
    """Sends requests until it is left; use it as a context.

    Args:
        address: Where the service listens.
        traffic: Where requests come from.
        rate: Requests per second.
        conditions: Where the traffic comes from at first.
    """

    def __init__(
        self, address: str, traffic: Traffic, rate: float, conditions: Sequence[Condition]
    ) -> None:
        self._address = urlsplit(address).netloc
        self._traffic = traffic
        self._pause = _THREADS / rate
        self._conditions = tuple(conditions)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._answers: Counter[str] = Counter()
        self._first_ns: dict[str, int] = {}
        self._newest = ""
        self._lost = 0
        self._loss: list[str] = []
        self._slowest = 0.0
        self._threads = [
            threading.Thread(target=self._send, name=f"load-{number}", daemon=True)
            for number in range(_THREADS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def shift(self, conditions: Sequence[Condition]) -> None:
        """Let the traffic come from elsewhere, from the next request on."""
        with self._lock:
            self._conditions = tuple(conditions)

    def slow_down(self, factor: float) -> None:
        """Send that many times fewer requests per second from now on."""
        self._pause *= factor

    def stop(self) -> Served:
        """Send nothing more, wait for what was asked, and give what clients got."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT_SECONDS)
        return self.served

    @property
    def served(self) -> Served:
        """What clients got so far."""
        with self._lock:
            return Served(
                requests=self._answers.total() + self._lost,
                lost=self._lost,
                loss=tuple(self._loss),
                answers=dict(self._answers),
                first_ns=dict(self._first_ns),
                newest=self._newest,
                slowest_seconds=self._slowest,
            )

    def _send(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=_TIMEOUT_SECONDS)
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._pause, time.monotonic())
            with self._lock:
                [(condition, pictures)] = self._traffic.requests(1, self._conditions)
            began = time.monotonic()
            try:
                connection.request(
                    "POST",
                    "/classify",
                    pictures.numpy().tobytes(),
                    {"Content-Type": "application/octet-stream", "X-Segment": condition},
                )
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != _OK:
                    raise ValueError(f"status {answer.status}: {body[:200]!r}")
                document = json.loads(body)
                if len(document["digits"]) != len(pictures):
                    raise ValueError(f"{len(document['digits'])} digits of {len(pictures)}")
                self._note(str(document["version"]), time.monotonic() - began)
            except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
                self._note_loss(f"{type(error).__name__}: {error}")
                connection.close()
        connection.close()

    def _note(self, version: str, seconds: float) -> None:
        with self._lock:
            self._answers[version] += 1
            self._first_ns.setdefault(version, time.time_ns())
            self._newest = version
            self._slowest = max(self._slowest, seconds)

    def _note_loss(self, what: str) -> None:
        with self._lock:
            self._lost += 1
            if len(self._loss) < _LOSSES_TOLD:
                self._loss.append(what)
