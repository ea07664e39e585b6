"""The commands that exist, and how they join."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import final

from calidrift_agent.errors import ConfigurationError

__all__ = ["GROUP", "Command", "CommandTable", "joined", "register"]

GROUP = "calidrift.commands"
"""Entry point group by which packages add commands."""

_OWN = {
    "doctor": "Attach to a model, run a few requests, and say what watching it sees and costs.",
    "sidecar": "Serve the figures of state directories to Prometheus, and push them over OTLP.",
}

_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command, described without importing what it needs.

    Attributes:
        name: What the user types.
        summary: One line for `calidrift --help`.
        load: Imports and returns the function; its first parameter is the `Invocation`, the others
            are typer parameters.
        extra: The extra of this distribution that brings `packages`; empty where none is needed.
        packages: Top-level modules that the extra brings.
    """

    name: str
    summary: str
    load: Callable[[], Callable[..., None]]
    extra: str = ""
    packages: tuple[str, ...] = ()

    def require_extra(self) -> None:
        """Look for the packages of the extra, without importing them.

        Raises:
            ConfigurationError: One is not installed; the message names the extra.
        """
        absent = [name for name in self.packages if not _is_installed(name)]
        if absent:
            raise ConfigurationError(
                f"'calidrift {self.name}' needs {', '.join(absent)}, not installed here; install "
                f'the extra that brings it: pip install "calidrift[{self.extra}]"'
            )


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


@final
class CommandTable:
    """The commands of one run, in the order in which they joined."""

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}

    def add(self, command: Command) -> None:
        """Add a command.

        Raises:
            ConfigurationError: The name is taken.
        """
        if command.name in self._commands:
            raise ConfigurationError(
                f"two packages bring a command {command.name!r}; uninstall one of them"
            )
        self._commands[command.name] = command

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands.values())

    def first_named(self, arguments: Iterable[str]) -> Command | None:
        """Find the command that a command line asks for: the first word that is a command."""
        return next((self._commands[word] for word in arguments if word in self._commands), None)


def joined(points: Iterable[EntryPoint] | None = None) -> CommandTable:
    """Collect the commands of every installed package.

    A package whose entry point cannot be loaded loses its commands and is named in the log; the
    commands of the others stay usable.
    """
    table = CommandTable()
    for point in entry_points(group=GROUP) if points is None else points:
        try:
            point.load()(table)
        except Exception as error:
            _log.warning("the commands of %r cannot be loaded: %s", point.name, error)
    if points is None:
        register(table)
    return table


def register(table: CommandTable) -> None:
    """Add the agent's own commands, behind those of other packages."""
    for name, summary in _OWN.items():
        table.add(Command(name=name, summary=summary, load=_own_loader(name)))


def _own_loader(name: str) -> Callable[[], Callable[..., None]]:
    def load() -> Callable[..., None]:
        module = import_module(f"calidrift_agent._command_line._{name}")
        function: Callable[..., None] = getattr(module, name)
        return function

    return load
