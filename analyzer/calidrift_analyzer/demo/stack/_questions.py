"""What is asked of the servers of a run: Prometheus, Alertmanager and the analyzer."""

import json
import math
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, final
from urllib.parse import urlencode

from prometheus_client.parser import text_string_to_metric_families

from calidrift_analyzer.demo._workdir import MODEL

__all__ = ["Questions", "moment_ns"]

_TIMEOUT_SECONDS: Final = 10.0
_ACTION: Final = "recalibrate"
# Only this machine is asked: a proxy of the environment would not find it.
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def moment_ns(text: str) -> int:
    """Read a moment of an API, in UTC nanoseconds."""
    return int(datetime.fromisoformat(text).timestamp() * 1e9)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """The servers, and what is asked of them; whatever is not answered raises an `OSError`.

    Attributes:
        prometheus: Its address.
        alertmanager: Its address.
        analyzer: Its address.
        token: The analyzer's token for reading.
        decides: Its token for deciding what serves.
    """

    prometheus: str
    alertmanager: str
    analyzer: str
    token: str
    decides: str

    def value(self, expression: str) -> float | None:
        """Give what an expression of one sample is now; `None` where it is nothing.

        Raises:
            ValueError: Prometheus refuses the expression.
        """
        answer = self._get(f"{self.prometheus}/api/v1/query", query=expression)
        found = answer["data"]["result"]
        value = float(found[0]["value"][1]) if found else math.nan
        return None if math.isnan(value) else value

    def names(self, expression: str, label: str) -> tuple[str, ...]:
        """Give the values of a label among the samples of an expression."""
        answer = self._get(f"{self.prometheus}/api/v1/query", query=expression)
        return tuple(sorted({one["metric"][label] for one in answer["data"]["result"]}))

    def firing(self) -> tuple[dict[str, Any], ...]:
        """Give the alerts that fire in Prometheus and ask for new ranges."""
        answer = self._get(f"{self.prometheus}/api/v1/alerts")
        return tuple(
            one
            for one in answer["data"]["alerts"]
            if one["state"] == "firing" and one["labels"].get("action") == _ACTION
        )

    def fired(self, *, repairs: bool = True) -> tuple[str, ...]:
        """Give the names of the alerts that fired within the last 10 minutes.

        Args:
            repairs: Those that ask for new ranges, or the others.
        """
        sign = "=" if repairs else "!="
        which = f'ALERTS{{alertstate="firing",action{sign}"{_ACTION}"}}'
        return self.names(f"max_over_time({which}[10m])", "alertname")

    def known_to_alertmanager(self) -> int:
        """Give how many alerts that ask for new ranges are active in Alertmanager."""
        found = self._get(f"{self.alertmanager}/api/v2/alerts", filter=f'action="{_ACTION}"')
        return len(found)

    def notifications(self) -> tuple[int, int]:
        """Give how many notifications went to webhooks, and how many attempts failed."""
        with _OPENER.open(f"{self.alertmanager}/metrics", timeout=_TIMEOUT_SECONDS) as answer:
            text = answer.read().decode()
        sums = {"alertmanager_notifications_total": 0.0}
        sums["alertmanager_notifications_failed_total"] = 0.0
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in sums and sample.labels.get("integration") == "webhook":
                    sums[sample.name] += sample.value
        sent, failed = sums.values()
        return int(sent), int(failed)

    def jobs(self) -> list[dict[str, Any]]:
        """Give the analyzer's jobs, the newest first."""
        found: list[dict[str, Any]] = self._of_analyzer("jobs")["items"]
        return found

    def job(self, number: int) -> dict[str, Any]:
        """Give one job with its steps."""
        found: dict[str, Any] = self._of_analyzer(f"jobs/{number}")
        return found

    def model(self) -> dict[str, Any]:
        """Give the analyzer's judgement of the model."""
        found: dict[str, Any] = self._of_analyzer(f"models/{MODEL}")
        return found

    def roll_back(self, to: str | None, note: str) -> str:
        """Let an earlier version of the model serve again, as a person would.

        Args:
            to: The version; where not given, the one before the current one.
            note: Why.

        Returns:
            What the analyzer says to it.
        """
        request = urllib.request.Request(
            f"{self.analyzer}/api/v1/models/{MODEL}/rollback",
            json.dumps({"to": to, "note": note}).encode(),
            {"Authorization": f"Bearer {self.decides}", "Content-Type": "application/json"},
        )
        with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return str(json.loads(answer.read())["sentence"])

    def _of_analyzer(self, what: str) -> Any:
        return self._get(f"{self.analyzer}/api/v1/{what}", token=self.token)

    def _get(self, url: str, *, token: str = "", **query: str) -> Any:
        request = urllib.request.Request(f"{url}?{urlencode(query)}" if query else url)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return json.loads(answer.read())
