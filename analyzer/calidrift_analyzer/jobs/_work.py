"""What a stage of a job is given, and what it gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, final

from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.contract import Progress
from calidrift_analyzer.jobs._database import Database
from calidrift_analyzer.records import JobEvent, JobRow, JobState
from calidrift_analyzer.store import Store

__all__ = ["StageResult", "StageWork", "Stages"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StageWork:
    """What a stage works with.

    Attributes:
        job: The job, in the state whose work is to be done.
        contract: The contract of its model.
        document: With what the job came into the state; empty for the first one.
        newest: Highest number of a version at the approval; 0 before.
        database: The store.
        progress: To be told of every step; it raises where the job must end.
    """

    job: JobRow
    contract: ModelContract
    document: Mapping[str, Any]
    newest: int
    database: Database
    progress: Progress


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """What a stage came to.

    Attributes:
        state: Where the job goes.
        sentence: Why, in words.
        document: What that state needs to begin, and to begin anew after a kill.
        record: What else to keep, in the same transaction as the step.
        event: What the step is; the job stays where it is in all but `ENTERED`.
    """

    state: JobState
    sentence: str
    document: Mapping[str, Any]
    record: "Record | None" = None
    event: JobEvent = JobEvent.ENTERED


class Record(Protocol):
    """Something to keep together with a step."""

    def __call__(self, store: Store) -> None:
        """Write it; runs inside the transaction of the step, at most once."""
        ...


class Stages(Protocol):
    """Does the work of a state. It may be killed at any moment and begun anew."""

    def run(self, work: StageWork) -> StageResult | None:
        """Do the work of the state that the job is in.

        Returns:
            What it came to; `None` where the job waits for something, and is looked at again.

        Raises:
            RefusedError: A gate said no.
            CalidriftError: The job cannot go on; the message says why.
        """
        ...
