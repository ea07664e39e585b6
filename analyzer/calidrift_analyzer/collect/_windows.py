"""Windows out of state files, through the agent's own reader."""

from calidrift_agent._state import ReadResult, StateReader
from calidrift_agent._vocabulary import WindowFlag
from calidrift_agent.errors import StateError
from calidrift_analyzer.collect._report import Tally
from calidrift_analyzer.store import Store

__all__ = ["collect_windows"]


def collect_windows(reader: StateReader, store: Store, batch: int, tally: Tally) -> None:
    """Bring the new windows of one process into the store, in one transaction.

    Args:
        reader: An open state file.
        store: Where to.
        batch: Number of this collect run.
        tally: Notes what was new and what could not be read.

    Raises:
        StoreError: The database failed; run again.
    """
    try:
        found = _read(reader, store)
        new = store.ingest(reader.meta, found.windows, batch=batch)
    except StateError as error:
        tally.skip(reader.path, error)
        return
    tally.processes += 1
    tally.windows += new
    tally.coarse += sum(bool(window.flags & WindowFlag.COARSE) for window in found.windows)
    for complaint in found.damaged:
        tally.skip(reader.path, complaint)
    if found.missing is not None:
        first, last = found.missing
        tally.skip(
            reader.path,
            f"windows {first} to {last} could not be read; their counts arrive with a later sum "
            "if the process lives on, and are lost otherwise",
        )


def _read(reader: StateReader, store: Store) -> ReadResult:
    found = reader.windows(after=store.last_number(reader.meta))
    if found.missing is None:
        return found
    # The ring has lost windows: what the store already holds, taken from the cumulative sum,
    # leaves them. Summing is expensive, so only now.
    return reader.windows(already=store.sums(reader.meta))
