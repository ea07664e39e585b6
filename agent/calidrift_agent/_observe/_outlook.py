"""What running a model has shown about how it can be observed; read by the report."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import final

from calidrift_agent._vocabulary import Strategy


@final
@dataclass(frozen=True, slots=True)
class View:
    """How a model is observed at present.

    Attributes:
        strategy: The strategy.
        points: Names of the points that are expected to fire; None for all.
        skipped: Name of what is not observed to the reason why.
        notes: Sentences for the report.
    """

    strategy: Strategy
    points: frozenset[str] | None = None
    skipped: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()


@final
class Outlook:
    """Where a shadow leaves what it found out, for whoever reports.

    Args:
        inner: Names of the points inside the model.
        points: Names of all points; the others are its inputs and output.
        edges: Whether inputs and output are observed where nothing inside can be.

    Attributes:
        view: The present view; replaced as a whole, so that any thread may read it.
    """

    __slots__ = ("_edges", "_inner", "_points", "view")

    def __init__(self, inner: Iterable[str], points: Iterable[str], *, edges: bool = True) -> None:
        self._edges = edges
        self._inner = frozenset(inner)
        self._points = frozenset(points)
        self.open()

    def open(self) -> None:
        """Note that the points inside are observed."""
        self.view = View(Strategy.BESIDE, self._inner)

    def close(self, why: str) -> None:
        """Note that only inputs and output are observed.

        Args:
            why: The reason, the end of a sentence.
        """
        reason = f"a copy of the model cannot be run beside it: {why}"
        if not self._edges:
            skipped = MappingProxyType(dict.fromkeys(sorted(self._inner), reason))
            self.view = View(
                Strategy.BESIDE, frozenset(), skipped, (f"nothing is observed: {why}",)
            )
            return
        edges = self._points - self._inner
        self.view = View(
            Strategy.EDGES,
            edges or self._points,
            MappingProxyType(dict.fromkeys(sorted(self._inner), reason) if edges else {}),
            (f"only inputs and output of the model are observed: {why}",),
        )
