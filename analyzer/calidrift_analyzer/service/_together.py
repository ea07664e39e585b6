"""What many readers ask for again and again, worked out once."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from calidrift_analyzer.records import Marker, ModelAssessment, Mute, annotated

__all__ = ["Predictions", "Together"]

_MOST: Final = 20_000
_Parts = tuple[ModelAssessment, tuple[Mute, ...], tuple[Marker, ...], ModelAssessment]


@final
@dataclass(frozen=True, slots=True)
class Together:
    """Remembers the last result by model: 6 ms for 200 points that every page would spend.

    Used on the owner's thread alone.
    """

    _last: dict[str, _Parts] = field(default_factory=dict, init=False, repr=False)

    def of(
        self, assessment: ModelAssessment, mutes: Sequence[Mute], markers: Sequence[Marker]
    ) -> ModelAssessment:
        """Give an assessment with mutes and markers beside it.

        Args:
            assessment: The assessment.
            mutes: Mutes of the model that are active now.
            markers: Its markers.
        """
        known = self._last.get(assessment.model)
        said = tuple(mutes), tuple(markers)
        if known is not None and known[0] is assessment and known[1:3] == said:
            return known[3]
        result = annotated(assessment, *said)
        self._last[assessment.model] = (assessment, *said, result)
        return result


@final
class Predictions:
    """Figures of sketches by a digest of what they follow from; the oldest of too many go.

    A heat map of an hour ago has the same sketches now, but for its last slice: each costs half a
    millisecond to look at and a microsecond to remember.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, float] = OrderedDict()

    def of(self, key: bytes, work: Callable[[], float]) -> float:
        """Give a figure, worked out where it is not known.

        Args:
            key: Digest of everything that it follows from.
            work: Works it out.
        """
        with self._lock:
            found = self._known.get(key)
        if found is None:
            found = work()
            with self._lock:
                self._known[key] = found
                while len(self._known) > _MOST:
                    self._known.popitem(last=False)
        return found
