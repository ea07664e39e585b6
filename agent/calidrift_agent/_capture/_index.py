"""`index.json` beside the captures: how many rows each store has seen."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, final

from calidrift_agent._capture._file import read_bytes
from calidrift_agent._vocabulary import CaptureKind
from calidrift_agent.errors import CaptureError

INDEX_NAME: Final = "index.json"
_VERSION: Final = 1


@final
@dataclass(frozen=True, slots=True)
class CaptureIndex:
    """Counts that turn a store into probabilities.

    Attributes:
        model: Name given to `watch`.
        profile: Digest of the profile in force, "" without one.
        points_digest: SHA-256 of the names of the points.
        seen: Rows offered that could be kept, covered or not.
        seen_uncovered: The uncovered ones among them.
        reservoir: Size at which the uniform reservoir replaces instead of growing.
        dropped: Uncovered rows that are not here any more, or never were.
    """

    model: str
    profile: str
    points_digest: str
    seen: int
    seen_uncovered: int
    reservoir: int
    dropped: int

    def inclusion(self, kind: CaptureKind) -> float:
        """Probability that a row offered to a store of this kind is in it.

        For `UNCOVERED` it is 1, which is exact only while nothing was dropped.

        Example:
            >>> CaptureIndex("net", "", "", 640, 3, 64, 0).inclusion(CaptureKind.UNIFORM)
            0.1
        """
        if kind is CaptureKind.UNIFORM:
            return min(1.0, self.reservoir / self.seen) if self.seen else 1.0
        return 1.0

    def to_json(self) -> str:
        """JSON text of this record."""
        return json.dumps({"version": _VERSION, **asdict(self)}, ensure_ascii=False)


def read_index(directory: Path | str) -> CaptureIndex | None:
    """The index of a capture directory; None where there is none.

    Raises:
        CaptureError: The file is damaged or written by a newer version.
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
                "update the reader"
            )
        index = CaptureIndex(**fields)
        for name, value in asdict(index).items():
            wanted = str if name in ("model", "profile", "points_digest") else int
            if type(value) is not wanted or (isinstance(value, int) and value < 0):
                raise TypeError(f"{name} is {value!r}")
        return index
    except (AttributeError, KeyError, TypeError) as error:
        raise CaptureError(f"capture index {path} is damaged ({error})") from error
