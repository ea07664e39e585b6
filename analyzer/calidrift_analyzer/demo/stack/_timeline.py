"""What happened when, since the traffic shifted."""

import time
from typing import final

from calidrift_analyzer.demo.stack._result import StackStep

__all__ = ["Timeline"]


@final
class Timeline:
    """The steps of the loop; it begins when it is made."""

    def __init__(self) -> None:
        self.began_ns = time.time_ns()
        self._steps: list[tuple[str, int, str]] = []

    def note(self, name: str, told: str, at_ns: int | None = None) -> None:
        """Note a step.

        Args:
            name: What happened.
            told: What was seen, in words.
            at_ns: When, UTC; now where not given.
        """
        self._steps.append((name, time.time_ns() if at_ns is None else at_ns, told))

    @property
    def steps(self) -> tuple[StackStep, ...]:
        """The steps so far."""
        before, steps = self.began_ns, []
        for name, at_ns, told in self._steps:
            at, took = (at_ns - self.began_ns) / 1e9, (at_ns - before) / 1e9
            steps.append(StackStep(name, round(at, 3), round(took, 3), told))
            before = at_ns
        return tuple(steps)
