"""What the taps of one call saw, as the drain wants it: in columns, or as objects."""

from collections.abc import Callable
from typing import TYPE_CHECKING, final

from calidrift_agent._taps._reading import (
    Reading,
    Seen,
    joined,
    seen_by_strip,
    seen_in_readings,
    strip_readings,
)

if TYPE_CHECKING:
    from calidrift_agent._taps._native._tap import Strip


@final
class Harvest:
    """Readings of one call; made by its recorder, used by the drain, void once that is released.

    Args:
        rows: Rows of the request.
        strip: Where the native tap wrote; None where there was none for this call.
        measure: Measures what Python copied; called once, when it is first needed.
        energy: Whether the energy of what was seen is needed.

    Attributes:
        strip: As given.
    """

    __slots__ = ("_energy", "_measure", "_rows", "_samples", "_seen", "strip")

    def __init__(
        self,
        rows: int,
        strip: "Strip | None",
        measure: Callable[[], list[Reading]],
        *,
        energy: bool,
    ) -> None:
        self._rows = rows
        self._measure = measure
        self._energy = energy
        self._samples: list[Reading] | None = None
        self._seen: Seen | None = None
        self.strip = strip

    @property
    def sole_strip(self) -> "Strip | None":
        """Where the native tap wrote, if nothing was left to Python."""
        return None if self.samples() else self.strip

    @property
    def fired(self) -> bool:
        """Whether any floating-point tensor was observed."""
        own, strip = self.samples(), self.strip
        return bool(own or (strip is not None and strip.marks))

    def samples(self) -> list[Reading]:
        """Return what Python observed: all that the native tap does not count."""
        if self._samples is None:
            self._samples = self._measure()
        return self._samples

    def seen(self) -> Seen:
        """Return what was observed, in columns.

        Cost: 20 us, and 10 us for each tensor that Python copied whole; once.
        """
        if self._seen is None:
            own, strip = self.samples(), self.strip
            parts = []
            if strip is not None and strip.marks:
                parts.append(seen_by_strip(strip, self._rows))
            if own or not parts:
                parts.append(seen_in_readings(own, self._rows, energy=self._energy))
            self._seen = parts[0] if len(parts) == 1 else joined(*parts)
        return self._seen

    def readings(self) -> list[Reading]:
        """Return what was observed as objects, one for each tensor; to look at, not to count."""
        native = [] if self.strip is None else strip_readings(self.strip, self._rows)
        return [*native, *self.samples()]
