"""What a command shows: tables for people, one document for machines, progress on the side.

Standard output carries the answer and nothing else: with `--json` one JSON document, otherwise
text. Progress and remarks go to standard error, progress only where that is a terminal.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from math import isfinite
from typing import final

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from calidrift_agent._command_line import Invocation

__all__ = ["Output", "Progress", "count", "decibels", "moment", "number", "share"]

_WIDTH_OF_A_FILE = 160
"""Columns where standard output is no terminal: `calidrift status | less -S` loses nothing."""
_WIDE = 140
"""Columns from which tables show more than the essential columns."""
_SHORTEST_TEXT = 16
"""Width that a narrow terminal leaves to a column of text; longer texts go over several lines."""


Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are finished, and of how many (0: not known)."""


@final
class Output:
    """The answer of one command.

    Args:
        invocation: What the run was told.
    """

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._errors = Console(stderr=True, highlight=False)
        width = None if sys.stdout.isatty() else _WIDTH_OF_A_FILE
        self._answers = Console(file=sys.stdout, highlight=False, width=width)

    @property
    def json(self) -> bool:
        """Whether the answer is a JSON document."""
        return self._invocation.json

    @property
    def wide(self) -> bool:
        """Whether there is room for more than the essential columns of a table."""
        return self._answers.width >= _WIDE

    def document(self, document: Mapping[str, object]) -> None:
        """Write the JSON document; without `--json` it writes nothing.

        Args:
            document: The answer; dataclasses, enums, paths and arrays are allowed inside.

        Raises:
            RuntimeError: A document has been written before.
        """
        self._invocation.emit(document)

    def show(self, *renderables: RenderableType) -> None:
        """Write something for people; with `--json` it writes nothing."""
        if not self.json:
            for renderable in renderables:
                shown = Text(renderable) if isinstance(renderable, str) else renderable
                whole = isinstance(renderable, str) and not self._answers.is_terminal
                self._answers.print(shown, soft_wrap=whole)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write a table for people; with `--json` it writes nothing.

        Args:
            title: What the table says.
            columns: The headings; a column whose cells are all numbers is set to the right.
            rows: The cells: texts as they are, numbers by `number`, `None` as a dash.
        """
        cells = [[_cell(value) for value in row] for row in rows]
        table = Table(title=Text(title), title_justify="left", header_style="bold")
        for index, heading in enumerate(columns):
            texts = [row[index] for row in cells]
            longest = max((len(text) for text in texts), default=0)
            right = bool(texts) and all(_looks_like_a_number(text) for text in texts)
            table.add_column(
                Text(heading),
                justify="right" if right else "left",
                overflow="fold",
                min_width=longest if right else min(longest, _SHORTEST_TEXT),
            )
        for row in cells:
            table.add_row(*(Text(text) for text in row))
        self.show(table)

    def note(self, text: str) -> None:
        """Tell people something beside the answer, on standard error."""
        self._errors.print(Text(text), soft_wrap=True)

    @contextmanager
    def progress(self, what: str) -> Iterator[Progress]:
        """Show that long work is going on.

        Args:
            what: The work, in words (`measuring candidates`), until the first step is told.

        Yields:
            What to call whenever the work has come further; it may be called from any thread.
        """
        if not self._errors.is_terminal:
            yield _silent
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Bars(*columns, console=self._errors, transient=True) as bars:
            task = bars.add_task(what, total=None)

            def step(what: str, done: int, total: int) -> None:
                bars.update(task, description=what, completed=done, total=total or None)

            yield step


def _silent(what: str, done: int, total: int) -> None:
    """Do nothing: standard error is no terminal."""


def number(value: float | int | None, digits: int = 3) -> str:
    """Write a number for people; what is not there, or not finite, is a dash and never 0.

    >>> number(0.123456), number(12345), number(None), number(float("nan")), number(1e-9)
    ('0.123', '12,345', '-', '-', '1e-09')
    """
    if value is None or not isfinite(value):
        return "-"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 10**digits):
        return f"{int(value):,}"
    return f"{value:.{digits}g}"


def share(value: float | None) -> str:
    """Write a ratio in percent.

    >>> share(0.9512), share(1.0), share(0.99996), share(4.8e-8), share(None)
    ('95.1 %', '100 %', '<100 %', '<0.001 %', '-')
    """
    if value is None or not isfinite(value):
        return "-"
    if 0 < value < 1e-5:
        return "<0.001 %"
    text = f"{100 * value:.3g}"
    if text == "100" and value < 1:
        return "<100 %"
    return f"{text} %"


def count(number: int, what: str) -> str:
    """Write how many there are.

    >>> count(1, "unit"), count(1200, "unit")
    ('1 unit', '1,200 units')
    """
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def moment(time_ns: int) -> str:
    """Write a moment, given in UTC nanoseconds; 0 is none.

    >>> moment(1_800_000_000_000_000_000), moment(0)
    ('2027-01-15 08:00:00 UTC', '-')
    """
    if not time_ns:
        return number(None)
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def decibels(value: float | None, sign: str = "-") -> str | None:
    """Write decibels to a tenth, without the unit; `sign="+"` for a change.

    >>> decibels(-0.01, "+"), decibels(3.04, "+"), decibels(41.26), decibels(None)
    ('0.0', '+3.0', '41.3', None)
    """
    if value is None:
        return None
    return "0.0" if abs(value) < 0.05 else f"{value:{sign}.1f}"


def _cell(value: object) -> str:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return number(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _looks_like_a_number(text: str) -> bool:
    bare = text.removesuffix(" %").removesuffix(" dB").removeprefix("<").removeprefix("10^")
    parts = bare.replace(",", "").split(" to ")
    if bare in {"-", ""}:
        return True
    try:
        [float(part) for part in parts]
    except ValueError:
        return False
    return True
