"""What the database knows about versions that are tried on canaries."""

import json
from collections.abc import Sequence
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_analyzer.records import (
    CanaryTrial,
    CanaryWindows,
    JobState,
    ObservedModel,
)
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._sql import query

__all__ = ["Canaries"]

_AFTERGLOW_NS: Final = 300 * 10**9
"""For so long after a canary was withdrawn, windows may still come in that it wrote."""


@final
class Canaries:
    """Windows and trials of canaries; reached as `Store.canaries`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def windows(self, model: str, trial: CanaryTrial) -> CanaryWindows:
        """List the windows of canaries and peers that began since a trial did.

        Args:
            model: Name of the model.
            trial: The trial.

        Cost: about 0.1 s for a day of ten replicas with windows of 10 s.
        """
        found = self._connection.table(
            query("canary_windows"),
            {
                "model": model,
                "canary": trial.profile,
                "peers": trial.peers,
                "since": trial.since_ns,
            },
        )

        def table(*names: str) -> NDArray[np.int64]:
            columns = [found.column(name).to_numpy().astype(np.int64) for name in names]
            return np.stack(columns, axis=1)

        return CanaryWindows(
            canary=found.column("canary").to_numpy(zero_copy_only=False).astype(np.bool_),
            started_ns=table("started_ns")[:, 0],
            units=table("units")[:, 0],
            bad=table("outside", "disagreed", "errors"),
            of=table("units", "compared", "sampled"),
        )

    def in_service(self, found: Sequence[ObservedModel]) -> ObservedModel:
        """Choose what is in service of what was observed of a model: never what is only tried.

        While a version is tried on canaries, their windows come in beside those of its peers; the
        model is judged by what its peers serve. A canary that was withdrawn counts again where it
        was observed minutes later: somebody has put it into service.

        Args:
            found: At least one, the most recent first.
        """
        rows = self._connection.rows(query("canary_trial"), {"model": found[0].model})
        if not rows:
            return found[0]
        document, state, updated_ns = rows[0]
        profile = json.loads(document)["trial"]["profile"]
        if state == JobState.PROMOTED:
            return found[0]
        until_ns = updated_ns + _AFTERGLOW_NS if JobState(state).finished else None
        others = [
            one
            for one in found
            if one.profile != profile
            or (until_ns is not None and min(one.last_ns, one.arrived_ns) > until_ns)
        ]
        return others[0] if others else found[0]
