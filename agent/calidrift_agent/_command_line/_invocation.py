"""One run of a command: what every command takes, and the streams that it writes to."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date
from enum import Enum
from math import isfinite
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Self, TextIO, final

from calidrift_agent.errors import ConfigurationError

__all__ = ["Invocation", "PipeClosedError", "jsonable"]


class PipeClosedError(BaseException):
    """The reader of standard output went away (`calidrift status | head -1`).

    Not an `Exception`: nobody between the write and the end of the command has to handle it.
    """


@final
class Invocation:
    """What every command is told, and its machine-readable answer.

    With `--json`, standard output belongs to the one JSON document: everything else that is
    written to it meanwhile (by user code, by a compiler that a library starts) goes to standard
    error, also when it is written past Python to the file descriptor.

    Attributes:
        json: Whether `--json` was given.
        debug: Whether `--debug` was given.
        config: The path given with `--config`, or `None`.
        emitted: Whether the JSON document has been written.
    """

    def __init__(self, *, json: bool = False, debug: bool = False) -> None:
        self.json = json
        self.debug = debug
        self.config: Path | None = None
        self.emitted = False
        self._document: TextIO | None = None
        self._stdout: TextIO = sys.stdout
        self._saved: int | None = None

    def __enter__(self) -> Self:
        self._stdout = sys.stdout
        if self.json:
            self._stdout.flush()
            self._document = self._claim_descriptor() or self._stdout
            sys.stdout = sys.stderr
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.stdout = self._stdout
        if self._saved is not None:
            os.dup2(self._saved, 1)
            with suppress(OSError):  # a reader that went away is handled by whoever wrote
                if self._document is not None:
                    self._document.close()
            self._saved = None

    def _claim_descriptor(self) -> TextIO | None:
        """Send descriptor 1 to standard error, and keep its former target for the document."""
        try:
            if self._stdout.fileno() != 1:
                return None
        except (OSError, ValueError):  # a replaced stream: there is nothing below Python to guard
            return None
        self._saved = os.dup(1)
        os.dup2(2, 1)
        return os.fdopen(self._saved, "w", encoding="utf-8")

    def emit(self, document: Mapping[str, object]) -> None:
        """Write the JSON document of this run; without `--json` it writes nothing.

        Args:
            document: Anything that `jsonable` takes.

        Raises:
            RuntimeError: A document has been written before.
            ConfigurationError: Standard output cannot be written.
        """
        if not self.json:
            return
        if self.emitted:
            raise RuntimeError("a command answers with exactly one JSON document")
        text = json.dumps(jsonable(document), allow_nan=False, ensure_ascii=False, indent=2)
        self.emitted = True
        stream = self._document or self._stdout
        try:
            stream.write(text + "\n")
            stream.flush()
        except BrokenPipeError as error:
            raise PipeClosedError from error
        except OSError as error:
            raise ConfigurationError(
                f"the JSON document cannot be written to standard output ({error.strerror}); send "
                "it to a place that has room"
            ) from error


def jsonable(value: object) -> Any:
    """Turn a value into what JSON can say.

    Dataclasses become objects, enums their values, paths and dates texts, arrays lists. A number
    that is not finite becomes `null`: JSON has no word for it, and "no data" is never 0.

    Args:
        value: The value.

    Returns:
        None, a truth value, a number, a text, a list or a dictionary with text keys.

    Raises:
        TypeError: The value is something else.

    >>> jsonable({"path": PurePath("a/b"), "db": float("nan"), "n": (1, 2)})
    {'path': 'a/b', 'db': None, 'n': [1, 2]}
    """
    if isinstance(value, Enum):
        return jsonable(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if isfinite(value) else None
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (field.name for field in dataclasses.fields(value))
        return {name: jsonable(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(jsonable(key)): jsonable(one) for key, one in value.items()}
    listed = getattr(value, "tolist", None)  # numpy scalars and arrays
    if callable(listed):
        return jsonable(listed())
    if isinstance(value, set | frozenset):
        return [jsonable(one) for one in sorted(value)]
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray):
        return [jsonable(one) for one in value]
    raise TypeError(f"a {type(value).__name__} has no JSON form; give numbers, texts and lists")
