"""Limits that have nothing to do with what a row holds: rows per hour, and room on the disk."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import Final, final

_HOUR: Final = 3600.0


@final
class HourLimit:
    """How many rows were written within the last hour, exactly.

    Args:
        limit: Most rows of any 60 minutes.

    Memory: 32 bytes per row of the limit.
    """

    def __init__(self, limit: int) -> None:
        self._times: deque[float] = deque(maxlen=limit)

    @property
    def reached(self) -> bool:
        """Whether no row may be written now."""
        times = self._times
        return len(times) == times.maxlen and times[0] > time.monotonic() - _HOUR

    def count(self) -> None:
        """A row was written."""
        self._times.append(time.monotonic())


def disk_use(folder: Path) -> float | None:
    """Used share of the file system that a folder lies on, or will lie on, as `df` counts it.

    Space that is reserved for root counts as used up. None where it cannot be told.

    Cost: one `statvfs`, about 2 us on a local disk.

    Example:
        >>> 0.0 <= disk_use(Path("/")) <= 1.0
        True
    """
    for place in (folder, *folder.parents):
        try:
            status = os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        used = status.f_blocks - status.f_bfree
        room = used + status.f_bavail
        return used / room if room > 0 else None
    return None
