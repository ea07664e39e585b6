"""The outbox: moves of the version pointer, and what became of telling them."""

import time
from collections.abc import Mapping
from typing import Final, final

from calidrift_analyzer.records import DeployAction, DeploymentRow, DeployState
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._sql import query

__all__ = ["Deployments"]

_MOST: Final = 2**31
"""Rows where no limit is asked for."""


@final
class Deployments:
    """The tables of the outbox; reached as `Store.deployments`.

    `add` and `tried` belong inside `JobBook.changing`, together with what they are about.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, row: DeploymentRow) -> int:
        """Keep a move that is to be told.

        Returns:
            Its number; that of `row` and what became of it do not count.
        """
        rows = self._connection.rows(
            query("deployment_add"),
            {
                "model": row.model,
                "version": row.version,
                "previous": row.previous,
                "action": row.action.value,
                "registry": row.registry,
                "manifest": row.manifest_sha256,
                "created": row.created_ns,
            },
        )
        return int(rows[0][0])

    def tried(self, entry: int, state: DeployState, sentence: str, output: str = "") -> None:
        """Note a try and where the move stands since."""
        self._connection.rows(
            query("deployment_try"),
            {
                "entry": entry,
                "state": state.value,
                "at": time.time_ns(),
                "sentence": sentence,
                "output": output,
            },
        )

    def page(
        self,
        model: str | None = None,
        *,
        version: str | None = None,
        entry: int | None = None,
        open: bool = False,
        limit: int | None = None,
    ) -> tuple[DeploymentRow, ...]:
        """List moves, the newest first.

        Args:
            model: Only those of this model.
            version: Only those to this version.
            entry: Only the one of this number.
            open: Only those that are still to be told.
            limit: At most so many.
        """
        rows = self._connection.rows(
            query("deployments"),
            {
                "model": model,
                "version": version,
                "entry": entry,
                "open": open,
                "limit": limit or _MOST,
            },
        )
        return tuple(
            DeploymentRow(
                entry=row[0],
                model=row[1],
                version=row[2],
                previous=row[3],
                action=DeployAction(row[4]),
                registry=row[5],
                manifest_sha256=row[6],
                created_ns=row[7],
                state=DeployState(row[8]),
                attempts=row[9],
                updated_ns=row[10],
                sentence=row[11],
                output=row[12],
            )
            for row in rows
        )

    def newest(self, model: str) -> DeploymentRow | None:
        """Give the last move of a model; `None` where none was kept."""
        return next(iter(self.page(model, limit=1)), None)

    def outcomes(self) -> Mapping[tuple[str, DeployState], int]:
        """Count the moves that are no longer tried, by model and outcome."""
        rows = self._connection.rows(query("deployment_outcomes"))
        return {(str(model), DeployState(state)): int(moves) for model, state, moves in rows}
