"""The parent's side: start the child, describe what it saved."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

from calidrift_agent._profile import CalibrationProfile
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.contract import Progress, run_in_child
from calidrift_analyzer.records import record_document

__all__ = ["Calibrated", "calibrate_model"]

_JOB = "calidrift_analyzer.calibrate._job:run"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A profile that was measured and saved.

    Attributes:
        path: Where it was saved.
        profile: The profile itself.
    """

    path: Path
    profile: CalibrationProfile

    @property
    def unobserved(self) -> tuple[str, ...]:
        """Points without a bound: they never fired, or never with a finite value."""
        return tuple(
            name for name, point in self.profile.points.items() if point.observed_bound is None
        )


def calibrate_model(
    contract: ModelContract,
    target: Path,
    *,
    rank: int = 1,
    progress: Progress | None = None,
) -> Calibrated:
    """Run the FP32 model of a contract over its calibration set and save the profile.

    Args:
        contract: The model and its calibration set.
        target: Where to save; an existing profile is replaced, in one step.
        rank: The observed bound of a point is the rank-th largest absolute maximum of a unit.
        progress: Called for every batch; the total is 0 where the set does not tell its length.

    Returns:
        What was measured.

    Raises:
        ContractError: The user's code is missing or misbehaves.
        AttachError: The model cannot be observed.
        ConfigurationError: The calibration set is empty, or smaller than `rank`.
        ChildError: The child process died.
    """
    request = {"contract": record_document(contract), "target": str(target), "rank": rank}
    run_in_child(_JOB, request, progress=progress)
    return Calibrated(path=target, profile=CalibrationProfile.load(target))
