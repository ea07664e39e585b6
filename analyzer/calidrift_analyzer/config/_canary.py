"""The table `[models.NAME.canary]`: a version is tried on some replicas before all serve it."""

from dataclasses import dataclass
from typing import Annotated, Final, final

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["CANARY_WORDS", "CanaryConfig", "CanarySettings"]

CANARY_WORDS: Final = "a table with units = 1000 and hours = 24, or other numbers"
_UNITS = "a whole number of units from 20 to 10000000"
_HOURS = "a number of hours above 0, at most 720"


@final
class CanarySettings(BaseModel):
    """A table `[models.NAME.canary]`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    units: Annotated[int, Field(ge=20, le=10_000_000, description=_UNITS)] = 1_000
    hours: Annotated[float, Field(gt=0, le=720, description=_HOURS)] = 24.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryConfig:
    """How long a version is tried on canaries.

    Attributes:
        units: Random units that the canaries, and their peers, must each have shown.
        hours: Longest wait for them; then the version is refused.
    """

    units: int = 1_000
    hours: float = 24.0
