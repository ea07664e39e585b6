"""How long the database keeps what fine, and how large it may become: keys of `[analyzer]`."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, final

from calidrift_analyzer.errors import ConfigurationError

__all__ = ["RETENTION_KEYS", "RetentionConfig"]

_DAYS_OF_A_YEAR: Final = 365


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionConfig:
    """What `calidrift store retain` works by.

    Attributes:
        keep_windows_hours: How long single windows stay; then their sums over a minute.
        keep_minutes_days: How long minutes stay; then their sums over an hour.
        keep_hours_days: How long hours stay; then their sums over a day.
        keep_days_years: How long days stay; then one sum over the life of each process.
        max_database_bytes: Size that the database should stay under; `None` for no limit.
    """

    keep_windows_hours: float = 168.0
    keep_minutes_days: float = 30.0
    keep_hours_days: float = 365.0
    keep_days_years: float = 10.0
    max_database_bytes: int | None = None

    def __post_init__(self) -> None:
        names = RETENTION_KEYS[:4]
        for finer, coarser, short, long in zip(
            names, names[1:], self.spans, self.spans[1:], strict=False
        ):
            if long < short:
                raise ConfigurationError(
                    f"{coarser} in [analyzer] is {getattr(self, coarser):g} ({_words(long)}), "
                    f"shorter than {finer} = {getattr(self, finer):g} ({_words(short)}), but sums "
                    "must stay at least as long as what they replace: raise the one or lower the "
                    "other"
                )

    @property
    def spans(self) -> tuple[timedelta, timedelta, timedelta, timedelta]:
        """How long windows, minutes, hours and days stay."""
        return (
            timedelta(hours=self.keep_windows_hours),
            timedelta(days=self.keep_minutes_days),
            timedelta(days=self.keep_hours_days),
            timedelta(days=self.keep_days_years * _DAYS_OF_A_YEAR),
        )


RETENTION_KEYS: Final = (
    "keep_windows_hours",
    "keep_minutes_days",
    "keep_hours_days",
    "keep_days_years",
    "max_database_bytes",
)
"""The keys, from the finest to the coarsest, then the limit."""


def _words(span: timedelta) -> str:
    days = span / timedelta(days=1)
    return f"{days:g} days" if days >= 1 else f"{24 * days:g} hours"
