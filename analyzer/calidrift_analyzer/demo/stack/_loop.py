"""The loop: from the shift of the traffic to the end of the alert, each step seen from outside.

Then somebody rolls back, and forward again.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar, final

from calidrift_analyzer.demo._data import Condition
from calidrift_analyzer.demo._run import Narrator
from calidrift_analyzer.demo._workdir import MODEL
from calidrift_analyzer.demo.stack._load import Load
from calidrift_analyzer.demo.stack._programs import Programs
from calidrift_analyzer.demo.stack._questions import Questions, moment_ns
from calidrift_analyzer.demo.stack._result import StackStep
from calidrift_analyzer.demo.stack._timeline import Timeline
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.records import JobEvent, JobState, Trigger

__all__ = ["CALM", "Loop"]

_T = TypeVar("_T")

CALM: Final = (Condition.LOW_LIGHT,)
"""Where the traffic comes from at first; the first version was calibrated on it."""
_SHIFTED: Final = tuple(Condition)

_CALM_SECONDS: Final = 90.0
_ALARM_SECONDS: Final = 90.0
_ALERT_SECONDS: Final = 60.0
_JOB_SECONDS: Final = 240.0
_SWAP_SECONDS: Final = 90.0
_COVERED: Final = 0.95
"""As in the rule `CalidriftCoverageLow`."""
_LEAST_UNITS: Final = 30
"""Units of the new version from which its coverage is told."""
_JUDGED_SECONDS: Final = 90.0
_SETTLED_NS: Final = 4 * 10**9
"""Two windows of the service."""
_CALMER: Final = 3.0
"""The rush is over when the repair begins, which needs the cores of a small machine itself."""
_FOR_MODEL: Final = f'{{model="{MODEL}"}}'
_ALARM: Final = f"max(calidrift_drift_alarm{_FOR_MODEL})"
_COVERAGE: Final = f"min(calidrift_request_coverage_ratio{_FOR_MODEL})"
_SERVES: Final = "calidrift_agent_version_info"
_ATTEMPTS: Final = f'calidrift_agent_version_attempts_total{{model="{MODEL}",outcome='
_LOADED: Final = f'{_ATTEMPTS}"served"}} >= 2'
"""The promoted version, and the one that was rolled back to."""
_SHORT: Final = f'{_ATTEMPTS}"kernels_missing"}}'
_STATES: Final = (
    ("captured requests are selected", JobState.RECALIBRATING),
    ("candidates are made", JobState.VALIDATING),
    ("candidates are validated against FP32", JobState.AWAITING_APPROVAL),
    ("a version is promoted", JobState.PROMOTED),
)


@final
class Loop:
    """Watches the loop go round once.

    Args:
        questions: What can be asked of whom.
        load: The traffic.
        programs: What runs.
        narrator: Told of every step.

    Attributes:
        job: Number of the job that the alert led to; 0 before.
        first: The version that served before; empty until it is seen.
        version: The version that was promoted; empty before.
        candidate: What it was before.
        alerts: Alerts that ask for new ranges and fired.
        coverage_before: Request coverage when the rule fired.
        coverage_after: The same of the new version, in the end.
        calm_seconds: How long the calm traffic was judged.
    """

    def __init__(
        self, questions: Questions, load: Load, programs: Programs, narrator: Narrator
    ) -> None:
        self._ask = questions
        self._load = load
        self._programs = programs
        self._narrator = narrator
        self._timeline: Timeline
        self._stale = ""
        self._sent = 0
        self.job = 0
        self.first = ""
        self.version = ""
        self.candidate = ""
        self.alerts: tuple[str, ...] = ()
        self.coverage_before: float | None = None
        self.coverage_after = 0.0
        self.calm_seconds = 0.0

    @property
    def steps(self) -> tuple[StackStep, ...]:
        """What happened when."""
        return self._timeline.steps

    def go_round(self, calm_units: int) -> None:
        """Wait for a calm judgement, shift the traffic, and wait for each step.

        Args:
            calm_units: Units that are judged before.

        Raises:
            RefusedError: A step did not come, or something came that should not.
        """
        began = time.monotonic()
        self._until("low-light requests are judged", lambda: self._calm(calm_units), _CALM_SECONDS)
        if self._ask.jobs() or self._ask.firing():
            raise RefusedError(
                "an alert fired before the traffic had shifted, so what follows would show "
                "nothing; run it again with another --seed"
            )
        [self.first] = self._until("the version that serves has a name", self._named)
        self.calm_seconds = round(time.monotonic() - began, 3)
        self._timeline = Timeline()
        self._load.shift(_SHIFTED)
        self._alarmed()
        self._repaired()
        self._restored()
        self._taken_back()

    def _calm(self, units: int) -> float | None:
        """Whether Prometheus has a judgement of enough units, and no alarm."""
        found = self._ask.model()
        self._stale = found["profile"]
        return self._ask.value(f"{_ALARM} == 0") if found["units"] >= units else None

    def _named(self) -> tuple[str, ...] | None:
        """The version that the serving process says it serves, once it does."""
        found = self._ask.names(f"{_SERVES}{_FOR_MODEL}", "version")
        return found if len(found) == 1 else None

    def _alarmed(self) -> None:
        """Metrics, rule, Alertmanager, webhook."""
        self._until("metrics show the drift", lambda: self._ask.value(f"{_ALARM} == 1"))
        self._timeline.note("metrics show the drift", "calidrift_drift_alarm is 1 in Prometheus")
        firing = self._until("a rule fires", lambda: self._ask.firing() or None, _ALERT_SECONDS)
        self.alerts = tuple(one["labels"]["alertname"] for one in firing)
        self.coverage_before = self._ask.value(_COVERAGE)
        self._timeline.note("the rule fires", ", ".join(self.alerts))
        [job] = self._until("Alertmanager calls the webhook", self._called, _ALERT_SECONDS)
        self._load.slow_down(_CALMER)
        self.job = int(job["job"])
        self._timeline.note(
            "Alertmanager calls the webhook",
            f"job {self.job}, by {job['actor']}: {job['cause']}",
            moment_ns(job["created"]),
        )

    def _called(self) -> list[dict[str, Any]] | None:
        jobs = [one for one in self._ask.jobs() if one["trigger"] == Trigger.ALERTMANAGER]
        return jobs[-1:] or None

    def _repaired(self) -> None:
        """Selection, recalibration, validation, promotion: the steps of the job."""
        until = time.monotonic() + _JOB_SECONDS
        for name, state in _STATES:
            seconds = max(0.0, until - time.monotonic())
            step = self._until(name, partial(self._entered, state), seconds)
            self._timeline.note(name, step["sentence"], moment_ns(step["at"]))
        self.candidate = str(self._ask.job(self.job)["report"]["candidate"]["id"])
        self.version = self._until(
            "the version has a name", lambda: self._ask.model()["version"], _ALERT_SECONDS
        )

    def _entered(self, state: JobState) -> dict[str, Any] | None:
        """The step with which the job came into a state.

        Raises:
            RefusedError: It ended elsewhere.
        """
        found = self._ask.job(self.job)
        for step in found["steps"]:
            if step["state"] == state and step["event"] == JobEvent.ENTERED:
                return dict(step)
        job = found["job"]
        if job["finished"] and job["state"] != JobState.PROMOTED:
            raise RefusedError(f"job {self.job} was not promoted: {job['sentence']}")
        return None

    def _restored(self) -> None:
        """Swap, coverage, and the end of the alerts."""
        swapped = self._until(
            "the serving process swaps",
            lambda: self._load.served.first_ns.get(self.version),
            _SWAP_SECONDS,
        )
        self._timeline.note("the serving process swaps", f"first answer by {self.version}", swapped)
        self.coverage_after = self._until("coverage is restored", self._covered, _ALARM_SECONDS)
        self._timeline.note(
            "coverage is restored", f"{100 * self.coverage_after:.3g} % of the observed requests"
        )
        self._until(
            "the alerts resolve", lambda: None if self._ask.firing() else True, _ALERT_SECONDS
        )
        self._timeline.note("the alert resolves", "nothing that asks for new ranges fires")
        sent, failed = self._until("Alertmanager tells it", self._told, _ALERT_SECONDS)
        self._timeline.note(
            "Alertmanager tells it", f"{sent} notifications in all, {failed} attempts failed"
        )

    def _taken_back(self) -> None:
        """Back to what served before, by the API, and forward again."""
        sentence = self._ask.roll_back(None, "to show that it can be done")
        self._timeline.note("somebody rolls back", sentence)
        self._swapped("the serving process swaps back", self.first)
        self._until("metrics name the version", lambda: self._shown(self.first))
        loaded = self._until("its loads are counted", lambda: self._ask.value(_LOADED))
        short = self._ask.value(_SHORT) or 0.0
        self._timeline.note(
            "metrics name the version",
            f"{self.first}; loads that ran every planned INT8 kernel: {loaded:.0f}, that did not: "
            f"{short:.0f}",
        )
        self._ask.roll_back(self.version, "that was the better one")
        self._swapped("the promoted version serves again", self.version)
        self._until("metrics name the version", lambda: self._shown(self.version))
        since_ns = time.time_ns()
        self._until("it is judged again", lambda: self._judged(since_ns), _JUDGED_SECONDS)
        self._until("no alert is left", lambda: None if self._ask.firing() else True)

    def _swapped(self, name: str, version: str) -> None:
        """Wait until answers come from a version."""
        self._until(name, lambda: self._load.served.newest == version or None, _SWAP_SECONDS)
        self._timeline.note(name, f"answers come from {version}")

    def _shown(self, version: str) -> float | None:
        """Whether Prometheus and the analyzer know that a version serves."""
        if self._named() != (version,) or self._ask.model()["version"] != version:
            return None
        return self._ask.value(f'{_SERVES}{{model="{MODEL}",version="{version}"}} == 1')

    def _judged(self, since_ns: int) -> float | None:
        """Coverage, once the analyzer has judged windows of what serves since a moment.

        Before that it may still be about to judge the last windows of the version from before.
        """
        found = self._ask.model()
        last_ns = moment_ns(found["last_window"])
        if last_ns < since_ns + _SETTLED_NS or moment_ns(found["assessed"]) < last_ns:
            return None
        return self._covered()

    def _covered(self) -> float | None:
        """Coverage of the new version in Prometheus, once enough units of it were observed."""
        found = self._ask.model()
        if found["profile"] == self._stale or found["units"] < _LEAST_UNITS:
            return None
        if self._ask.value(f"{_ALARM} == 0") is None:
            return None
        return self._ask.value(f"{_COVERAGE} >= {_COVERED}")

    def _told(self) -> tuple[int, int] | None:
        """How many notifications were sent, once nothing is active any more."""
        sent, failed = self._ask.notifications()
        # One for each alert that fired, and one for its end.
        done = not self._ask.known_to_alertmanager() and sent >= 2 * len(self._ask.fired())
        return (sent, failed) if done else None

    def _until(
        self, what: str, look: Callable[[], _T | None], seconds: float = _ALARM_SECONDS
    ) -> _T:
        with self._narrator.step(what):
            return self._programs.wait(what, look, seconds)
