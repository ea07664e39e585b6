"""The listing of captured requests; the tensors stay in their files."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from calidrift_agent._capture import list_captures, read_capture
from calidrift_agent.errors import CaptureError
from calidrift_analyzer.collect._report import Tally
from calidrift_analyzer.records import CaptureEntry
from calidrift_analyzer.store import Store

__all__ = ["collect_captures"]

_CAPTURES: Final = "captures"


def collect_captures(folder: Path, store: Store, tally: Tally) -> None:
    """Bring the listing of a state directory's captures up to date.

    A capture never changes, so only files that are new are opened. Files that are gone (the agent
    replaces captures to stay within its limits) leave the listing.

    Args:
        folder: The state directory.
        store: Where to.
        tally: Notes how many there are and what could not be read.

    Raises:
        StoreError: The database failed; run again.
    """
    root = folder / _CAPTURES
    entries = store.captures()
    known = {entry.path: entry for entry in entries if Path(entry.path).is_relative_to(root)}
    moved = {(entry.process, Path(entry.path).name): entry for entry in entries}
    found: dict[str, CaptureEntry] = {}
    try:
        paths = list_captures(root)
    except CaptureError as error:
        tally.skip(root, error)
        return
    for path in paths:
        try:
            size = path.stat().st_size
            listed = known.get(str(path)) or moved.get((path.parent.name, path.name))
            if listed is None or listed.size != size:
                listed = _entry(path, size)
            listed = replace(listed, path=str(path))
            found[str(path)] = listed
        except FileNotFoundError:
            continue  # replaced since it was listed
        except (CaptureError, OSError) as error:
            if path.exists():
                tally.skip(path, error)
    tally.captures += len(found)
    if found != known:
        store.put_captures(root, list(found.values()))


def _entry(path: Path, size: int) -> CaptureEntry:
    capture = read_capture(path)
    return CaptureEntry(
        path=str(path),
        process=path.parent.name,
        model=capture.model,
        profile=capture.profile,
        kind=capture.kind,
        captured_ns=capture.time_ns,
        segment=capture.segment or None,
        size=size,
    )
