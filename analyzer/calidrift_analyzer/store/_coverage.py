"""Which windows of a process two archives have in common: what to take over from the other one.

Both archives hold records of the same process: single windows, coarse ones, and rollups over spans
of them. An archive that has lost nothing holds a *prefix*: the sum of its records up to number n is
the sum of the windows 0 to n. Two prefixes are compared by their ends, whatever the records are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, final

__all__ = ["Plan", "Record", "lost", "plan"]

_NOTHING: Final = -1
"""End of the prefix of an archive that holds nothing."""


@final
@dataclass(frozen=True, slots=True)
class Record:
    """One row of `recorded`, whatever its tier.

    Attributes:
        number: Number of the last window inside.
        first: Number of the first window inside.
        windows: How many windows it stands for; a coarse one counts once.
        coarse: How many of them were coarse: they stand for everything before them that is not in
            a record of its own.
    """

    number: int
    first: int
    windows: int
    coarse: int


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What to take over from the other archive, in this order.

    Attributes:
        rest_through: Number n such that the other archive's sum up to n, less everything that is
            here, becomes one coarse window; `None` where no record needs to be cut.
        numbers: Numbers of its records that come over as they are, ascending.
        unclear: Numbers of its records that overlap with what is here in a way that cannot be told
            apart, because one of the two has lost windows; they stay where they are.
    """

    rest_through: int | None = None
    numbers: tuple[int, ...] = ()
    unclear: tuple[int, ...] = ()


@final
@dataclass(slots=True)
class _Coverage:
    """What the records of one archive account for.

    Attributes:
        last: Largest number.
        ends: Ends of prefixes, ascending, `_NOTHING` first.
        holes: Spans of numbers, both ends inside, that belong to no record and no coarse window.
    """

    last: int = _NOTHING
    ends: list[int] = field(default_factory=lambda: [_NOTHING])
    holes: list[tuple[int, int]] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing below the last number is missing."""
        return self.ends[-1] == self.last

    def end_above(self, number: int) -> int | None:
        """Give the first end of a prefix above a number; `None` where there is none."""
        return next((end for end in self.ends if end > number), None)


def plan(here: Sequence[Record], there: Sequence[Record]) -> Plan:
    """Decide what of the other archive's records of one process is new here.

    Where both hold prefixes the longer one wins: its records behind the end of the shorter one come
    over as they are; one that reaches across that end comes over as what it has more. Where an
    archive has lost windows (damaged slots of a process that died) the other fills the holes with
    records that lie inside them, or with the difference of sums.

    Args:
        here: Records of the process here, by number.
        there: Its records in the other archive, by number.

    Returns:
        The plan; empty where everything is here.

    Cost: 1 us per record.
    """
    ours, theirs = _cover(here), _cover(there)
    if theirs.last > ours.last:
        return _continue(ours, theirs, there)
    if ours.whole:
        return Plan()
    return Plan(numbers=_filling(ours, there))


def lost(records: Sequence[Record]) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Count the windows of a process that no record and no coarse window accounts for.

    Args:
        records: All records of one process.

    Returns:
        How many windows, and the spans of numbers, both ends inside, that no record reaches over;
        what was lost inside a rollup is counted and has no span.

    Cost: 1 us per record.
    """
    found = _cover(records)
    behind = sum(one.windows for one in records if one.number > found.ends[-1])
    return found.last - found.ends[-1] - behind, tuple(found.holes)


def _continue(ours: _Coverage, theirs: _Coverage, there: Sequence[Record]) -> Plan:
    if ours.whole and ours.last in theirs.ends:
        return Plan(numbers=tuple(one.number for one in there if one.number > ours.last))
    through = theirs.end_above(ours.last)
    if through is not None:
        return Plan(through, tuple(one.number for one in there if one.number > through))
    # The other archive has lost windows: only what certainly is not here comes over.
    behind = [one for one in there if one.number > ours.last]
    clear = {one.number for one in behind if one.first > ours.last and not one.coarse}
    return Plan(
        numbers=(*_filling(ours, there), *sorted(clear)),
        unclear=tuple(one.number for one in behind if one.number not in clear),
    )


def _filling(ours: _Coverage, there: Sequence[Record]) -> tuple[int, ...]:
    """Records of the other archive that lie inside the holes of this one."""
    return tuple(
        one.number
        for one in there
        if not one.coarse
        and any(low <= one.first and one.number <= high for low, high in ours.holes)
    )


def _cover(records: Sequence[Record]) -> _Coverage:
    found = _Coverage()
    held = 0
    for record in sorted(records, key=lambda one: one.number):
        held += record.windows
        found.last = record.number
        # No window is there twice, so as many as there are numbers are all of them.
        if record.coarse or held == record.number - found.ends[-1]:
            found.ends.append(record.number)
            held = 0
    behind = [one for one in records if one.number > found.ends[-1]]
    found.holes = list(_between(found.ends[-1], behind))
    return found


def _between(end: int, records: Sequence[Record]) -> Iterator[tuple[int, int]]:
    """Spans of numbers behind `end` that no record reaches over."""
    covered = end
    for record in sorted(records, key=lambda one: one.first):
        if record.first > covered + 1:
            yield covered + 1, record.first - 1
        covered = max(covered, record.number)
