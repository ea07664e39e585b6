"""Several state directories as one, for a sidecar that serves more than one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import final

import numpy as np

from calidrift_agent._state._combine import FleetSum
from calidrift_agent._state._directory import ModelState, StateDirectory
from calidrift_agent._vocabulary import AgentState
from calidrift_agent.errors import StateError


@final
class StateDirectories:
    """Reads several state directories; a model that lives in more than one is summed up.

    A directory that cannot be read takes the models that it had the last time out of the answer:
    their sums would be too low, and a counter that goes down looks like a restart.

    Args:
        directories: The directories; none need exist yet. Two ways to the same folder count once.

    Attributes:
        damaged: What could not be read the last time, one sentence each.
    """

    def __init__(self, directories: Iterable[Path | str]) -> None:
        folders = dict.fromkeys(Path(directory).resolve() for directory in directories)
        self._readers = {folder: StateDirectory(folder) for folder in folders}
        self._held: dict[Path, frozenset[str]] = {}
        self.damaged: tuple[str, ...] = ()

    @property
    def folders(self) -> tuple[Path, ...]:
        """The directories, each once and resolved."""
        return tuple(self._readers)

    def read(self, now_ns: int | None = None) -> tuple[ModelState, ...]:
        """Everything the directories say, by model name. Never raises a `StateError`.

        Args:
            now_ns: Current UTC time in nanoseconds; default: the clock.
        """
        complaints: list[str] = []
        parts: dict[str, list[ModelState]] = {}
        absent: set[str] = set()
        places: set[tuple[int, int]] = set()
        for folder, reader in self._readers.items():
            place = _place(folder)
            if place in places:
                continue  # mounted twice: its processes must not count twice
            if place is not None:
                places.add(place)
            try:
                found = reader.read(now_ns)
            except StateError as error:
                complaints.append(str(error))
                absent |= self._held.get(folder, frozenset())
                continue
            complaints += reader.damaged
            self._held[folder] = frozenset(model.meta.model for model in found)
            for model in found:
                parts.setdefault(model.meta.model, []).append(model)
        self.damaged = tuple(complaints)
        return tuple(_joined(parts[name]) for name in sorted(parts.keys() - absent))


def _place(folder: Path) -> tuple[int, int] | None:
    """What a folder is, whatever ways lead to it; None where it is not there."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _joined(parts: Sequence[ModelState]) -> ModelState:
    """One model over all its directories."""
    if len(parts) == 1:
        return parts[0]
    first = max(parts, key=lambda part: (part.alive > 0, part.meta.started_ns))
    living = [part for part in parts if part.alive]
    fleet = FleetSum(first.meta, [part.meta for part in parts], [part.meta for part in living])
    recent = np.full(len(fleet.meta.points), -np.inf)
    weighted, at_work = 0.0, 0
    for part in parts:
        fleet.add(part.meta, part.total)
        rows = fleet.rows(part.meta)
        recent[rows] = np.maximum(recent[rows], part.recent_absmax)
        working = sum(part.states.values())
        weighted += part.total.sampling_ratio * working
        at_work += working
    ages = [part.age_seconds for part in parts if part.age_seconds is not None]
    return ModelState(
        meta=fleet.meta,
        total=fleet.total(weighted / at_work if at_work else 0.0),
        recent_absmax=recent,
        age_seconds=max(ages, default=None),
        points_expected=first.points_expected,
        points_observed=max(part.points_observed for part in parts),
        alive=sum(part.alive for part in parts),
        dead=sum(part.dead for part in parts),
        states={state: sum(part.states.get(state, 0) for part in parts) for state in AgentState},
        present=frozenset[str]().union(*(part.present for part in living or [first])),
    )
