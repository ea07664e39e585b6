"""`index.json` beside the captures: with what probability each file is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, final

from calidrift_agent._capture._file import read_bytes
from calidrift_agent._vocabulary import CaptureKind
from calidrift_agent.errors import CaptureError

INDEX_NAME: Final = "index.json"
SHARED: Final = "*"
"""Name of the reservoir of all segments that have none of their own."""
_VERSION: Final = 2
_TEXTS: Final = frozenset({"model", "profile", "points_digest"})
_RATES: Final = frozenset({"reservoirs", "chances"})


def segment_key(segment: str) -> str:
    """The name of a segment in the index: a digest, for a segment may name a customer."""
    text = segment.encode(errors="replace").decode()
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@final
@dataclass(frozen=True, slots=True)
class CaptureIndex:
    """Counts that turn a store into probabilities.

    Attributes:
        model: Name given to `watch`.
        profile: Digest of the profile in force, "" without one.
        points_digest: SHA-256 of the names of the points.
        seen: Rows that could be kept, covered or not, that have not expired.
        seen_uncovered: Uncovered ones, since the process started.
        dropped: Uncovered rows that are not here any more, or never were.
        refused: Rows that came while nothing was written (rows per hour, a full disk, no key);
            they are not part of `seen`, and nothing here says anything about them.
        reservoirs: `segment_key` to the probability that a row of the segment is in its
            reservoir; `"*"` for the rows of all segments that are not named.
        chances: Id to probability, of those uncovered captures that are here by chance; 1 for the
            others, the extremes.
    """

    model: str
    profile: str
    points_digest: str
    seen: int
    seen_uncovered: int
    dropped: int
    refused: int = 0
    reservoirs: Mapping[str, float] = field(default_factory=dict)
    chances: Mapping[str, float] = field(default_factory=dict)

    def inclusion(self, kind: CaptureKind, segment: str = "", capture: str = "") -> float:
        """Probability that an offered row is in the store that it is in.

        Args:
            kind: Which store.
            segment: Segment of the row, for the uniform reservoirs.
            capture: Its id, for the store of uncovered rows.

        Example:
            >>> index = CaptureIndex("net", "", "", 640, 3, 0, reservoirs={"*": 0.1})
            >>> index.inclusion(CaptureKind.UNIFORM), index.inclusion(CaptureKind.UNCOVERED)
            (0.1, 1.0)
        """
        if kind is CaptureKind.UNIFORM:
            shared = self.reservoirs.get(SHARED, 1.0)
            return self.reservoirs.get(segment_key(segment), shared)
        return self.chances.get(capture, 1.0)

    def thinned(self, share: float, left: Iterable[str]) -> CaptureIndex:
        """The index of what is left when captures were removed at random.

        Args:
            share: Share that was kept, in (0, 1].
            left: Ids of the captures that are left.

        Example:
            >>> index = CaptureIndex("net", "", "", 640, 3, 0, reservoirs={"*": 0.1})
            >>> index.thinned(0.5, ["a"]).inclusion(CaptureKind.UNIFORM)
            0.05
        """
        reservoirs = {SHARED: 1.0, **self.reservoirs}
        return replace(
            self,
            reservoirs={key: rate * share for key, rate in reservoirs.items()},
            chances={name: self.chances.get(name, 1.0) * share for name in left},
        )

    def to_json(self) -> str:
        """JSON text of this record."""
        return json.dumps({"version": _VERSION, **asdict(self)}, ensure_ascii=False)


def read_index(directory: Path | str) -> CaptureIndex | None:
    """The index of a capture directory; None where there is none.

    Raises:
        CaptureError: The file is damaged or written by another version.
    """
    path = Path(directory) / INDEX_NAME
    if not path.exists():
        return None
    try:
        fields = json.loads(read_bytes(path))
    except (CaptureError, RecursionError, ValueError) as error:
        raise CaptureError(f"capture index {path} cannot be read ({error})") from error
    try:
        version = fields.pop("version")
        if version != _VERSION:
            raise CaptureError(
                f"capture index {path} has format {version}, this calidrift reads {_VERSION}; "
                "read it with the calidrift that wrote it"
            )
        index = CaptureIndex(**fields)
        for name, value in fields.items():
            _require(name, value)
        return index
    except (AttributeError, KeyError, TypeError) as error:
        raise CaptureError(f"capture index {path} is damaged ({error})") from error


def _require(name: str, value: Any) -> None:
    if name in _RATES:
        good = type(value) is dict and all(
            type(rate) in (int, float) and 0.0 < rate <= 1.0 for rate in value.values()
        )
    elif name in _TEXTS:
        good = type(value) is str
    else:
        good = type(value) is int and value >= 0
    if not good:
        raise TypeError(f"{name} is {str(value)[:80]!r}")
