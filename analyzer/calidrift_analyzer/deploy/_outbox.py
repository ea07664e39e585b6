"""Keeping a move that is to be told, together with the move itself."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, final

from calidrift_agent._registry import (
    MANIFEST_FILE,
    MODEL_FILE,
    Pointer,
    RegistryStore,
    VersionLayout,
    number_of,
    read_pointer,
)
from calidrift_agent.errors import RegistryError
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.errors import NoDataError, RefusedError
from calidrift_analyzer.records import DeployAction, DeploymentRow
from calidrift_analyzer.store import COMMAND_PATIENCE, Store

__all__ = [
    "FileDatabase",
    "enqueue",
    "enqueue_again",
    "notice_move",
    "require_published",
    "serving",
    "still_serves",
]

_T = TypeVar("_T")


@final
class FileDatabase:
    """A database that is open only while it is used, so that the hook itself may ask it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def run(self, work: Callable[[Store], _T]) -> _T:
        """Open it, run the work, and close it.

        Raises:
            StoreBusyError: Another process holds it.
            StoreError: It cannot be used.
        """
        with Store.open(self._path, patience=COMMAND_PATIENCE) as store:
            return work(store)


def serving(contract: ModelContract) -> str | None:
    """Give the version that the registry names; `None` for none, or no readable one."""
    pointer = _pointer(contract)
    return None if pointer is None else pointer.version


def enqueue(
    store: Store,
    contract: ModelContract,
    version: str,
    action: DeployAction,
    previous: str | None,
) -> None:
    """Keep a move that was made; inside the change that records the move, and at most once.

    Nothing is kept where the model has no hook, or where another version serves by now.

    Args:
        store: The store.
        contract: The model.
        version: The version that serves since.
        action: What the move was.
        previous: The version that served before.
    """
    if contract.deploy is None:
        return
    pointer = _pointer(contract)
    if pointer is None or pointer.version != version:
        return
    last = store.deployments.newest(contract.name)
    if last is not None and last.version == version:
        moves = store.outcomes.versions(contract.name)
        if not any(one.created_ns > last.created_ns and one.version != version for one in moves):
            return  # a model cannot move to where it is: this is the same move, kept already
    _add(store, contract, pointer, action, previous)


def enqueue_again(store: Store, contract: ModelContract) -> DeploymentRow:
    """Keep the last move of a model anew, for a person who has mended what was wrong.

    Inside a change.

    Returns:
        The move as it was kept before.

    Raises:
        RefusedError: The model has no hook, its last move still waits, or another version serves.
        NoDataError: No move was kept yet.
    """
    if contract.deploy is None:
        raise RefusedError(
            f"{contract.name} has no hook; add a table [models.{contract.name}.deploy]"
        )
    last = store.deployments.newest(contract.name)
    if last is None:
        raise NoDataError(f"no move of {contract.name} was kept yet; promote or roll back first")
    if not last.state.finished:
        raise RefusedError(f"version {last.version} of {contract.name} is being told already")
    pointer = _pointer(contract)
    if pointer is None or pointer.version != last.version:
        now = "no version" if pointer is None else f"version {pointer.version}"
        raise RefusedError(f"{now} of {contract.name} serves by now, and not {last.version}")
    _add(store, contract, pointer, last.action, last.previous)
    return last


def notice_move(store: Store, contract: ModelContract, *, settled_seconds: float) -> bool:
    """Keep a move that somebody made who could not use the database; inside a change.

    A command moves the pointer while the service holds the database; a process may be killed
    between move and record. Known moves of the model say what served before: where there is none,
    nothing was moved that anybody knows of.

    Args:
        store: The store.
        contract: The model.
        settled_seconds: A younger move is left to whoever is recording it now.

    Returns:
        Whether there was one.
    """
    pointer = _pointer(contract) if contract.deploy is not None else None
    moves = store.outcomes.versions(contract.name)
    if pointer is None or not moves:
        return False
    known, since_ns = moves[0].version, moves[0].created_ns
    last = store.deployments.newest(contract.name)
    if last is not None and last.created_ns > since_ns:
        known = last.version
    if pointer.version == known:
        return False
    moved = VersionLayout(contract.registry, contract.name).pointer.stat().st_mtime
    if 0 <= time.time() - moved < settled_seconds:
        return False
    back = number_of(pointer.version) < number_of(known)
    action = DeployAction.ROLLBACK if back else DeployAction.PROMOTE
    _add(store, contract, pointer, action, known)
    return True


def still_serves(contract: ModelContract, version: str) -> str | None:
    """Say which version serves in place of one; `None` where its model still does.

    A version with a newly learned profile serves the same model.

    Raises:
        RegistryError: The registry cannot be read.
    """
    layout = VersionLayout(contract.registry, contract.name)
    pointer = read_pointer(layout)
    if pointer is None:
        raise RegistryError(f"the registry {contract.registry} names no version of {contract.name}")
    if pointer.version == version or _model(layout, pointer.version) == _model(layout, version):
        return None
    return pointer.version


def require_published(contract: ModelContract) -> None:
    """Tell nobody of a version that is not yet where they would fetch it.

    Raises:
        RegistryError: The model has a registry_url that does not name yet what serves.
    """
    if contract.registry_url is None:
        return
    serves = read_pointer(VersionLayout(contract.registry, contract.name))
    if serves is None or RegistryStore(contract.registry_url, contract.name).pointer() != serves:
        raise RegistryError(f"what serves is not yet published at {contract.registry_url}")


def _model(layout: VersionLayout, version: str) -> str:
    """Digest of a version's model, which only equals its own where it cannot be read."""
    try:
        text = (layout.version(version) / MANIFEST_FILE).read_text(encoding="utf-8")
        return str(json.loads(text)["files"][MODEL_FILE]["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return version


def _pointer(contract: ModelContract) -> Pointer | None:
    try:
        return read_pointer(VersionLayout(contract.registry, contract.name))
    except RegistryError:
        return None


def _add(
    store: Store,
    contract: ModelContract,
    pointer: Pointer,
    action: DeployAction,
    previous: str | None,
) -> None:
    store.deployments.add(
        DeploymentRow(
            model=contract.name,
            version=pointer.version,
            previous=previous,
            action=action,
            registry=str(contract.registry),
            manifest_sha256=pointer.manifest_sha256,
            created_ns=time.time_ns(),
        )
    )
