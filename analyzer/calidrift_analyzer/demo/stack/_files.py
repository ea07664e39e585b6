"""Files of a run with the real servers: rules, routes, tokens and the service's table.

Configurations of Prometheus and Alertmanager are written as JSON, which is YAML.
"""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from calidrift_analyzer.demo._workdir import Workdir
from calidrift_analyzer.demo.stack._result import Shortened

__all__ = ["Secrets", "StackFiles", "shortened", "shortened_rules"]

_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_TIME: Final = re.compile(r"^(?P<key> *(?:interval|for): )(?P<number>\d+)(?P<unit>ms|s|m|h|d)$")
_ALERT: Final = re.compile(r"^ *- alert: (?P<name>\w+)$")
_LEAST_INTERVAL_MS: Final = 500

_SETTINGS: Final = """coverage_target = 0.9    # half a minute of new traffic shows less than a day

[service]
port = 0
tokens = "tokens.toml"
mode = "auto"
own_alarms = false       # the loop goes through Prometheus and Alertmanager
ingest_seconds = 2.0
assess_seconds = 3.0
"""


@final
@dataclass(frozen=True, slots=True)
class Secrets:
    """Tokens of the analyzer: one to read, one to trigger, one to decide what serves."""

    read: str
    trigger: str
    decide: str

    @classmethod
    def fresh(cls) -> "Secrets":
        """Make new ones."""
        return cls(*(secrets.token_hex(32) for _ in range(3)))


def shortened(duration: str, speed: float) -> str:
    """Divide a duration of Prometheus.

    >>> shortened("10m", 60), shortened("30s", 60), shortened("0s", 60)
    ('10s', '500ms', '0s')
    """
    return _written(_milliseconds(duration) / speed)


def shortened_rules(
    text: str, speed: float, least_hold_seconds: float = 0.0
) -> tuple[str, tuple[Shortened, ...]]:
    """Divide the times of a file of rules; expressions and everything else stay as they are.

    Args:
        text: The file as it is committed.
        speed: What to divide by.
        least_hold_seconds: A `for` that is as long as this does not become shorter than this.

    Returns:
        The new text, and what became of the `for` of each alert.
    """
    lines, holds, alert = [], [], ""
    for line in text.splitlines():
        named, timed = _ALERT.match(line), _TIME.match(line)
        if named:
            alert = named["name"]
        if timed:
            committed = timed["number"] + timed["unit"]
            hold = timed["key"].strip() == "for:"
            least = round(1_000 * least_hold_seconds) if hold else _LEAST_INTERVAL_MS
            used = _written(
                max(_milliseconds(committed) / speed, min(_milliseconds(committed), least))
            )
            if hold:
                holds.append(Shortened(alert, committed, used))
            line = timed["key"] + used
        lines.append(line)
    return "\n".join(lines) + "\n", tuple(holds)


def _written(milliseconds: float) -> str:
    whole, rest = divmod(round(milliseconds), 1_000)
    return f"{round(milliseconds)}ms" if rest else f"{whole}s"


def _milliseconds(duration: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\D+)", duration).groups()  # type: ignore[union-attr]
    return int(number) * _UNITS[unit]


@final
@dataclass(frozen=True, slots=True)
class StackFiles:
    """Where everything is, beside what every demo has.

    Attributes:
        workdir: The folder of the demo.
        secrets: Tokens of the analyzer.
        speed: What times are divided by.
    """

    workdir: Workdir
    secrets: Secrets
    speed: float

    @property
    def logs(self) -> Path:
        """What the programs wrote."""
        return self.workdir.root / "logs"

    @property
    def baseline(self) -> Path:
        """The first INT8 version, calibrated on low light."""
        return self.workdir.root / "baseline"

    @property
    def alertmanager(self) -> Path:
        """Folder of Alertmanager."""
        return self.workdir.root / "alertmanager"

    @property
    def prometheus(self) -> Path:
        """Folder of Prometheus."""
        return self.workdir.root / "prometheus"

    def write_service(self) -> None:
        """Write tokens, and what the analyzer is told beside the model's contract."""
        for folder in (self.logs, self.baseline, self.alertmanager, self.prometheus):
            folder.mkdir()
        tokens = self.workdir.root / "tokens.toml"
        tokens.touch(mode=0o600)
        tokens.write_text(
            f'[demo]\nsecret = "{self.secrets.read}"\nscopes = ["read"]\n\n'
            f'[alertmanager]\nsecret = "{self.secrets.trigger}"\nscopes = ["trigger"]\n\n'
            f'[operator]\nsecret = "{self.secrets.decide}"\nscopes = ["promote"]\n',
            encoding="utf-8",
        )
        for folder, secret in (
            (self.prometheus, self.secrets.read),
            (self.alertmanager, self.secrets.trigger),
        ):
            path = folder / "token"
            path.touch(mode=0o600)
            path.write_text(secret, encoding="utf-8")
        with self.workdir.config.open("a", encoding="utf-8") as config:
            config.write(_SETTINGS)

    def write_alertmanager(self, analyzer: str) -> Path:
        """Write the routes: those of the compose stack, with shorter times.

        Args:
            analyzer: Address of the analyzer.
        """
        wait, again, repeat = (shortened(one, self.speed) for one in ("30s", "5m", "4h"))
        hook = {
            "url": f"{analyzer}/api/v1/webhooks/alertmanager",
            "send_resolved": True,
            "http_config": {
                "authorization": {"credentials_file": str(self.alertmanager / "token")}
            },
        }
        return _write(
            self.alertmanager / "alertmanager.yml",
            {
                "route": {
                    "receiver": "nobody",
                    "group_by": ["alertname", "model"],
                    "group_wait": wait,
                    "group_interval": again,
                    "repeat_interval": repeat,
                    "routes": [
                        {
                            "receiver": "calidrift",
                            "matchers": ['action="recalibrate"', 'model!=""'],
                        }
                    ],
                },
                "receivers": [
                    {"name": "nobody"},
                    {"name": "calidrift", "webhook_configs": [hook]},
                ],
            },
        )

    def write_prometheus(
        self, rules: Mapping[str, str], *, service: str, analyzer: str, alertmanager: str
    ) -> Path:
        """Write rules and targets.

        Args:
            rules: Files of rules by name, with their times as they shall be.
            service: Address of the demo's service.
            analyzer: Address of the analyzer.
            alertmanager: Address of Alertmanager.
        """
        for name, text in rules.items():
            (self.prometheus / name).write_text(text, encoding="utf-8")
        every = "1s"
        credentials = {"credentials_file": str(self.prometheus / "token")}
        return _write(
            self.prometheus / "prometheus.yml",
            {
                "global": {"scrape_interval": every, "evaluation_interval": every},
                "rule_files": sorted(str(self.prometheus / name) for name in rules),
                "alerting": {"alertmanagers": [{"static_configs": [_target(alertmanager)]}]},
                "scrape_configs": [
                    {"job_name": "calidrift-agent", "static_configs": [_target(service)]},
                    {
                        "job_name": "calidrift-analyzer",
                        "authorization": credentials,
                        "static_configs": [_target(analyzer)],
                    },
                ],
            },
        )


def _target(address: str) -> dict[str, list[str]]:
    return {"targets": [address.removeprefix("http://")]}


def _write(path: Path, document: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path
