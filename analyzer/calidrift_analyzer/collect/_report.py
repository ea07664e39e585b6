"""What a collect run did."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import final

__all__ = ["CollectReport", "Skipped", "Tally"]


@final
@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that could not be read, wholly or in part; everything else was collected."""

    path: Path
    reason: str


@final
@dataclass(frozen=True, slots=True)
class CollectReport:
    """What one run brought.

    Attributes:
        windows: Windows that were new.
        coarse: Those of them that stand for several overwritten ones (the analyzer came late).
        processes: State files that were read.
        profiles: Profiles that were new.
        captures: Capture files that are listed now.
        skipped: What could not be read, with the reason.
    """

    windows: int
    coarse: int
    processes: int
    profiles: int
    captures: int
    skipped: tuple[Skipped, ...]


@final
@dataclass(slots=True)
class Tally:
    """The report while it grows."""

    windows: int = 0
    coarse: int = 0
    processes: int = 0
    profiles: int = 0
    captures: int = 0
    skipped: list[Skipped] = field(default_factory=list)

    def skip(self, path: Path, reason: object) -> None:
        """Note something that could not be read."""
        self.skipped.append(Skipped(path, str(reason)))

    def report(self) -> CollectReport:
        """Give the report."""
        return CollectReport(
            windows=self.windows,
            coarse=self.coarse,
            processes=self.processes,
            profiles=self.profiles,
            captures=self.captures,
            skipped=tuple(self.skipped),
        )
