"""What a state file says about its process and model, written once when it is created."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

from calidrift_agent._vocabulary import Instrument, Strategy
from calidrift_agent.errors import StateFormatError

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_NUMBER: Final = (int, float)
_META_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("process", "boot", "model", "profile", "agent_version"), (str,)),
    **dict.fromkeys(("pid", "started_ns"), (int,)),
    "window_seconds": _NUMBER,
}
_POINT_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "name": (str,),
    **dict.fromkeys(("observed_bound", "clip_lo", "clip_hi"), (*_NUMBER, type(None))),
}


@final
@dataclass(frozen=True, slots=True)
class PointMeta:
    """One observation point, with the bounds that were in force when the process started.

    Attributes:
        name: `<module path>:<role>`.
        observed_bound: Bound that exceedances were counted against; None without a reference.
        clip_lo: Lower end of the quantizer's range; None where the point has no known quantizer.
        clip_hi: Upper end of the quantizer's range; None together with `clip_lo`.
        aliases: Other names of the same tensor (modules fed by it).
    """

    name: str
    observed_bound: float | None = None
    clip_lo: float | None = None
    clip_hi: float | None = None
    aliases: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class StateMeta:
    """Identity of one watched model in one process.

    Attributes:
        process: Random identity (32 hex digits); a pid means nothing across containers.
        boot: The kernel's boot id, or "" where the system has none.
        pid: For people only; never used to decide whether the process lives.
        started_ns: When the watch started, UTC nanoseconds.
        model: Name given to `watch`.
        profile: Digest of the calibration profile, "" without one.
        instrument: What the figures were measured on.
        strategy: How sampled requests are observed.
        agent_version: Version of the writing package.
        window_seconds: Length of a window.
        points: The points, in the row order of every window.
    """

    process: str
    boot: str
    pid: int
    started_ns: int
    model: str
    profile: str
    instrument: Instrument
    strategy: Strategy
    agent_version: str
    window_seconds: float
    points: tuple[PointMeta, ...]

    def to_json(self) -> str:
        """JSON text of this record."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> StateMeta:
        """Read what `to_json` wrote.

        Raises:
            StateFormatError: The text is not such a record.
        """
        try:
            fields = _require_mapping(json.loads(text))
            points = tuple(_point(_require_mapping(point)) for point in fields.pop("points"))
            instrument = Instrument(fields.pop("instrument"))
            strategy = Strategy(fields.pop("strategy"))
            meta = cls(points=points, instrument=instrument, strategy=strategy, **fields)
            _require_types(meta, _META_TYPES)
            json.dumps(fields, ensure_ascii=False).encode()  # half a character fits no column
            return meta
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise StateFormatError(
                f"the description inside the state file cannot be read ({error}); it was written "
                "by another version of calidrift or is damaged"
            ) from error


def new_process_id() -> str:
    """A fresh random process identity, 32 hex digits."""
    return uuid.uuid4().hex


def boot_id(path: Path = _BOOT_ID) -> str:
    """The kernel's boot id without dashes, or "" where there is none."""
    try:
        return path.read_text(encoding="ascii").strip().replace("-", "")
    except (OSError, ValueError):
        return ""


def _require_mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return dict(value)


def _point(fields: dict[str, Any]) -> PointMeta:
    point = PointMeta(aliases=tuple(fields.pop("aliases", ())), **fields)
    _require_types(point, _POINT_TYPES)
    if not all(isinstance(alias, str) for alias in point.aliases):
        raise TypeError("aliases must be texts")
    "\0".join((point.name, *point.aliases)).encode()
    return point


def _require_types(record: object, wanted: Mapping[str, tuple[type, ...]]) -> None:
    for name, kinds in wanted.items():
        value = getattr(record, name)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise TypeError(f"{name} is {value}")
