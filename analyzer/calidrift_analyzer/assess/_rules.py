"""By what a model is judged."""

from dataclasses import dataclass
from typing import Final, Self, final

from calidrift_agent.errors import ConfigurationError
from calidrift_analyzer.config import ModelContract

__all__ = ["HARM_DB", "LEARNING_FLOOR", "AssessRules"]

HARM_DB: Final = 1.0
"""Fall of predicted SQNR that counts as harm, dB: a sixth of a bit (6.02 dB per bit)."""
LEARNING_FLOOR: Final = 0.25
"""A reference that cannot tell even this exceedance from bad luck is still learning."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AssessRules:
    """What every point and segment of one model is judged by.

    Attributes:
        alpha: False alarm probability over the whole life of the watch, all points together; once
            more for all service levels together, and once more for measured harm.
        harm_db: Fall of predicted SQNR that counts as harm, dB.
        learning_floor: Verdict `learning` while no exceedance up to this one can be detected.
        tolerance: Share of units that may leave the range: the service level, in (0, 1).
        average_run_length: Windows between two false alarms of the renewable alarm, at least 1.
        harm_tolerance: Mean loss of served outputs beside the FP32 reference that is tolerated, in
            (0, 1): other answers, or noise energy ÷ signal energy (5 % is 13 dB). The default is
            lenient; set it to what the service can bear.
        reference_units: Random units of production that a reference is learned from.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    alpha: float = 0.05
    harm_db: float = HARM_DB
    learning_floor: float = LEARNING_FLOOR
    tolerance: float = 0.01
    average_run_length: float = 100_000.0
    harm_tolerance: float = 0.05
    reference_units: int = 512

    @classmethod
    def of(cls, contract: ModelContract) -> Self:
        """What the configuration of a model says."""
        return cls(
            alpha=contract.alpha,
            tolerance=contract.tolerance,
            average_run_length=contract.average_run_length,
            harm_tolerance=contract.harm_tolerance,
            reference_units=contract.reference_units,
        )

    def __post_init__(self) -> None:
        for name in ("alpha", "tolerance", "harm_tolerance"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise ConfigurationError(f"{name} must be above 0 and below 1, got {value}")
        if not self.average_run_length >= 1.0:
            raise ConfigurationError(
                "average_run_length is a number of windows and must be at least 1, got "
                f"{self.average_run_length}"
            )
