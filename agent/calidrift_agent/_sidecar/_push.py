"""Pushes readings over OTLP, on a thread of its own."""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from calidrift_agent._sidecar._beginnings import Beginnings
from calidrift_agent._sidecar._exposition import Reading
from calidrift_agent._sidecar._figures import PushFigures
from calidrift_agent._sidecar._options import PushOptions
from calidrift_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.resources import Resource

_TIMEOUT_SECONDS: Final = 10.0
_LAST_TIMEOUT_SECONDS: Final = 1.0
_JITTER: Final = 0.1
_EXPORTER: Final = "opentelemetry.exporter.otlp.proto.http"
_log = logging.getLogger("calidrift_agent")


def require_exporter() -> None:
    """Look for the exporter, without importing it.

    Raises:
        ConfigurationError: It is not installed; the message names the extra.
    """
    try:
        found = find_spec(_EXPORTER) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise ConfigurationError(
            "--otlp needs the OTLP exporter of OpenTelemetry, not installed here; install the "
            'extra that brings it: pip install "calidrift[otlp]"'
        )


@final
class Pusher:
    """Pushes a reading at each interval, and once more at the end.

    What is pushed is cumulative, so nothing is queued: after a failure the next push carries
    everything. The exporter tries a push again, one, two and four seconds later, for ten seconds;
    then it is counted as failed. The log tells the first failure in a row and the first success
    after it.

    Args:
        options: Where to, and how often.
        read: Gives the current reading.
        figures: Where pushes are counted.
        directories: What the sidecar reads; with the host's name, its identity.
    """

    def __init__(
        self,
        options: PushOptions,
        read: Callable[[], Reading],
        figures: PushFigures,
        directories: Iterable[Path],
    ) -> None:
        require_exporter()
        self._options = options
        self._read = read
        self._figures = figures
        self._directories = sorted(str(one.resolve()) for one in directories)
        self._beginnings = Beginnings(time.time_ns())
        self._stopping = threading.Event()
        self._current: OTLPMetricExporter | None = None
        self._delivery = _Delivery()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="calidrift-otlp", daemon=True)

    def start(self) -> None:
        """Begin to push; the first time within one interval."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Push once more and end, or give up after `seconds`."""
        self._stopping.set()
        current = self._current
        if current is not None:
            current.shutdown()  # it may be waiting to try again
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._go_on()
        except Exception as error:  # an installation that is broken in a way nobody looked for
            self._figures.failed += 1
            _log.error("nothing is pushed any more: %s: %s", type(error).__name__, error)

    def _go_on(self) -> None:
        resource = _resource(self._directories)
        self._current = exporter = self._delivery.exporter(self._options, _TIMEOUT_SECONDS)
        delay = random.uniform(0.0, self._options.interval_seconds)
        while not self._stopping.wait(delay):
            self._push(exporter, resource)
            delay = self._options.interval_seconds * random.uniform(1 - _JITTER, 1 + _JITTER)
        self._push(self._delivery.exporter(self._options, _LAST_TIMEOUT_SECONDS), resource)

    def _push(self, exporter: OTLPMetricExporter, resource: Resource) -> None:
        from opentelemetry.sdk.metrics.export import MetricExportResult

        from calidrift_agent._sidecar._otlp import metrics_data

        self._delivery.reason = self._delivery.refusal = ""
        try:
            reading = self._read()
            self._beginnings.update(reading.models, reading.at_ns)
            result = exporter.export(metrics_data(reading, self._beginnings, resource))
            taken = result is MetricExportResult.SUCCESS and not self._delivery.refusal
        except Exception as error:
            self._delivery.reason = f"{type(error).__name__}: {error}"
            taken = False
        if taken:
            self._figures.accepted += 1
        else:
            self._figures.failed += 1
        if taken is self._failing:
            self._tell(taken)

    def _tell(self, taken: bool) -> None:
        if not taken and self._stopping.is_set():
            return  # `stop` may have cut it off; what follows is the last push
        self._failing = not taken
        if taken:
            _log.warning("the OTLP receiver takes figures again")
        else:
            _log.warning(
                "figures cannot be pushed to %s (%s); tried again at each interval",
                self._options.endpoint,
                self._delivery.refusal or self._delivery.reason or "no reason given",
            )


@final
class _Delivery:
    """Makes exporters, and hears what they do not tell: reasons, and answers that refuse.

    The exporter takes any status below 400 for success. A redirect, which it does not follow, is
    none, and an answer may say that some points were rejected.

    Attributes:
        reason: The first thing that the exporter complained of since this was emptied, be it that
            a later try succeeded; "" for nothing.
        refusal: What the last answer refuses although it is one of success; "" for nothing.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.refusal = ""

    def exporter(self, options: PushOptions, timeout: float) -> OTLPMetricExporter:
        """A new exporter. Headers, certificates and compression come from `OTEL_EXPORTER_OTLP_*`.

        Args:
            options: Where to.
            timeout: Time for one push with all its tries, in seconds.
        """
        import requests
        from opentelemetry.exporter.otlp.proto.http import metric_exporter

        logger = logging.getLogger(metric_exporter.__name__)
        for heard in [one for one in logger.filters if isinstance(one, _Listening)]:
            logger.removeFilter(heard)
        logger.addFilter(_Listening(self))
        session = requests.Session()
        session.hooks["response"].append(self._hear)
        return metric_exporter.OTLPMetricExporter(
            options.endpoint, timeout=timeout, session=session
        )

    def _hear(self, response: Any, *_: Any, **__: Any) -> None:
        self.refusal = ""
        if 300 <= response.status_code < 400:
            self.refusal = f"it answers {response.status_code}, a redirect"
        elif response.status_code < 300:
            self.refusal = _rejection(response.content)


@final
class _Listening(logging.Filter):
    """Keeps the exporter's words from the terminal, where each push would repeat them."""

    def __init__(self, delivery: _Delivery) -> None:
        super().__init__()
        self._delivery = delivery

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING and not self._delivery.reason:
            self._delivery.reason = record.getMessage()
        return False


def _rejection(body: bytes) -> str:
    """What an answer of success refuses; "" for nothing, and for a body that is not OTLP."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceResponse,
    )

    try:
        partial = ExportMetricsServiceResponse.FromString(body).partial_success
    except Exception:  # some receivers answer with JSON or a word
        return ""
    if not partial.rejected_data_points:
        return ""
    return f"it rejected {partial.rejected_data_points} points: {partial.error_message}"


def _resource(directories: Iterable[str]) -> Resource:
    """Who sends the figures; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` have the last word.

    The instance is the same after a restart: its series go on.
    """
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    host = socket.gethostname()
    instance = uuid.uuid5(uuid.NAMESPACE_URL, "\n".join([host, *directories]))
    named = {
        "service.name": "calidrift",
        "service.instance.id": str(instance),
        "host.name": host,
    }
    return Resource(named).merge(OTELResourceDetector().detect())
