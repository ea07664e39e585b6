"""Builds the typer application of one run.

Only the command that the words ask for is imported; the others stand in the help with their
summary. Every command gets `--config`, `--json` and `--debug` here, so none can forget them.
"""

import functools
import inspect
import select
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from calidrift_agent import __version__
from calidrift_agent._command_line._invocation import Invocation, PipeClosedError
from calidrift_agent._command_line._table import Command, CommandTable
from calidrift_agent._vocabulary import ExitCode

__all__ = ["UsageError", "dispatch"]

_HELP = "Watches the activation ranges of quantized models in production and repairs them."
_EPILOG = (
    "Exit status: 0 done, 1 refused by a gate (nothing changed), 2 usage or configuration error, "
    "3 internal error."
)
_FOREIGN = "Value error, "
"""Begins what another library says about a word; it tells nobody anything."""


class UsageError(Exception):
    """The words of the command line make no command."""

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE


def dispatch(words: Sequence[str], table: CommandTable, invocation: Invocation) -> int:
    """Run the command that the words ask for.

    Args:
        words: The command line without the program name.
        table: Every command there is.
        invocation: What the run was told; `config` is filled in here.

    Returns:
        The exit status of a command that ended without an error.

    Raises:
        UsageError: The words make no command.
        ConfigurationError: What the command needs is not installed.
    """
    wanted = table.first_named(words)
    application = _application()
    for command in table:
        function = _load(command, invocation) if command is wanted else _placeholder
        application.command(command.name, help=None if command is wanted else command.summary)(
            function
        )
    try:
        status = application(args=list(words), prog_name="calidrift", standalone_mode=False)
    except SystemExit as error:
        raise _explain_exit(error) from error
    except Exception as error:
        # typer's own errors can tell themselves; the class moved between typer and click.
        told = getattr(error, "format_message", None)
        if not callable(told):
            raise
        asked = f"calidrift {wanted.name}" if wanted else "calidrift"
        sentence = " ".join(str(told()).split()).rstrip(".").replace(_FOREIGN, "")
        raise UsageError(f"{sentence}; see '{asked} --help'") from error
    if status == 128 + 2:  # typer swallows Ctrl-C and gives the shell's status for it
        raise KeyboardInterrupt
    return status if isinstance(status, int) else int(ExitCode.DONE)


def _application() -> typer.Typer:
    application = typer.Typer(
        name="calidrift",
        help=_HELP,
        epilog=_EPILOG,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @application.callback()
    def root(
        version: Annotated[
            bool,
            typer.Option(
                "--version", help="Print the version.", is_eager=True, callback=_tell_version
            ),
        ] = False,
    ) -> None: ...

    return application


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"calidrift {__version__}")
        raise typer.Exit


def _placeholder() -> None:
    """Stand in the help for a command that was not asked for."""


def _load(command: Command, invocation: Invocation) -> Callable[..., None]:
    """Import the function of a command and give it the options that every command has."""
    command.require_extra()
    function = command.load()
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    common = list(inspect.signature(_common, eval_str=True).parameters.values())

    @functools.wraps(function)
    def bound(**values: Any) -> None:
        invocation.config = values.pop("config")
        for option in common[1:]:
            values.pop(option.name)  # read before typer started, so that usage errors obey them
        try:
            function(invocation, **values)
        except BrokenPipeError as error:
            raise _explain_pipe(error) from error

    del bound.__wrapped__  # typer would follow it to the signature without the common options
    bound.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
    bound.__annotations__ = {one.name: one.annotation for one in (*own, *common)}
    return bound


def _common(
    *,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Configuration file (default: calidrift.toml here)."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print exactly one JSON document on standard output.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the log and the traceback of an error.")
    ] = False,
) -> None:
    """The options of every command; only the signature counts."""


def _explain_pipe(error: BrokenPipeError) -> BaseException:
    """Tell a closed standard output (a matter of the shell) from any other broken pipe."""
    poll = select.poll()
    poll.register(sys.stdout, 0)  # POLLERR is told unasked: a pipe that nobody reads any more
    if poll.poll(0):
        return PipeClosedError()
    return RuntimeError(f"another process closed its end of a pipe: {error}")


def _explain_exit(error: SystemExit) -> BaseException:
    """Tell why something ended the process: typer does it for a closed pipe, user code may."""
    if isinstance(error.__context__, BrokenPipeError):
        return PipeClosedError()
    return RuntimeError(f"the code that the command ran called sys.exit({error.code!r})")
