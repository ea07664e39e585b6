"""Captured requests, held for the time of a recalibration."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import final

__all__ = ["Kept", "kept"]


@final
@dataclass(frozen=True, slots=True)
class Kept:
    """Copies of captures.

    Attributes:
        folder: Where they are; only this user can read it.
        files: The copies.
    """

    folder: Path
    files: tuple[Path, ...]


@contextmanager
def kept(samples: Sequence[Path]) -> Iterator[Kept]:
    """Copy captures aside: the agent goes on meanwhile, and replaces files by others.

    Args:
        samples: Capture files.

    Yields:
        Their copies, in a folder that only this user can read and that is removed afterwards.
        Files that the agent has replaced already are left out; those that cannot be read for
        another reason are given as they are, for the child to say what is wrong with them.
    """
    with TemporaryDirectory(prefix="calidrift-samples-") as name:
        found = []
        for number, sample in enumerate(samples):
            copy = Path(name) / str(number) / sample.name
            copy.parent.mkdir()
            try:
                shutil.copyfile(sample, copy)
            except FileNotFoundError:
                continue
            except OSError:
                copy = sample.resolve()
            found.append(copy)
        yield Kept(Path(name), tuple(found))
