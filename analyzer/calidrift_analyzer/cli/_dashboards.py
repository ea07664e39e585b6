"""`calidrift dashboards`."""

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_agent._vocabulary import ExitCode
from calidrift_analyzer.cli._output import Output, count
from calidrift_analyzer.config import GrafanaConfig, load_config
from calidrift_analyzer.dashboards import (
    Format,
    Grafana,
    Item,
    State,
    artefacts,
    compare,
    pull,
    push,
)
from calidrift_analyzer.errors import ConfigurationError

__all__ = ["dashboards"]

_TOLD: Final = 20
"""Differences told to people; all of them are in the JSON document."""
_TESTED: Final = range(11, 14)
"""Major versions of Grafana whose documented API this was written for."""


@final
class Action(StrEnum):
    """What to do."""

    EXPORT = "export"
    PUSH = "push"
    PULL = "pull"
    DIFF = "diff"


_FOLDERS: Final = {Action.EXPORT: "dashboards", Action.PULL: "grafana-pulled"}


def dashboards(
    invocation: Invocation,
    action: Annotated[Action | None, typer.Argument(help="What to do.", show_default=False)] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Folder to write to [export: dashboards, pull: grafana-pulled]."),
    ] = None,
    form: Annotated[
        Format,
        typer.Option("--format", help="How `export` writes: provisioning files or manifests."),
    ] = Format.FILES,
    url: Annotated[
        str | None, typer.Option(help="Address of Grafana (or CALIDRIFT_GRAFANA__URL).")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with a token of Grafana (or CALIDRIFT_GRAFANA_TOKEN itself)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that differ.")] = False,
) -> None:
    """Write dashboards and alerts for Grafana and Prometheus, or push them.

    `export` writes them as files, for file provisioning or Kubernetes. `push` brings Grafana to
    what they say and touches nothing that is right already. `diff` ends with status 1 where
    Grafana differs. `pull` fetches what Grafana has. The table `[grafana]` of the configuration
    names the folder, the data source, the contact point, and the addresses that links lead to.
    """
    flags = {"grafana.url": url}
    config = load_config(invocation.config, flags=flags).grafana
    output = Output(invocation)
    if action is None:
        raise ConfigurationError(
            f"say what to do with the dashboards: one of {', '.join(Action)}, as in "
            "'calidrift dashboards export'"
        )
    folder = Path(to or _FOLDERS.get(action, "."))
    if action is Action.EXPORT:
        _write(output, folder, artefacts(config, form), force)
        return
    if config.url is None:
        raise ConfigurationError(
            "no Grafana is named; give --url, the variable CALIDRIFT_GRAFANA__URL or the key "
            "grafana.url"
        )
    with Grafana(config.url, _token(config, token_file)) as grafana:
        _note_version(output, grafana.health())
        if action is Action.PUSH:
            with output.progress("pushing"):
                items = push(grafana, config)
            _show_pushed(output, items)
        elif action is Action.DIFF:
            with output.progress("comparing"):
                items = compare(grafana, config)
            _show_compared(output, items)
        else:
            _pull(output, grafana, config, folder, force)


def _token(config: GrafanaConfig, token_file: Path | None) -> str:
    """Find the token: the flag, the variable, the configuration; it is never shown."""
    if token_file is None and config.token is not None:
        return _header(config.token, "the variable CALIDRIFT_GRAFANA_TOKEN")
    path = token_file or config.token_file
    if path is None:
        raise ConfigurationError(
            "no token of Grafana is given; make one for a service account with the role Editor, "
            "and set CALIDRIFT_GRAFANA_TOKEN or give --token-file"
        )
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no ASCII text"
        raise ConfigurationError(
            f"the token file {path} cannot be read ({why}); give a file that holds one token"
        ) from error
    return _header(text, f"the token file {path}")


def _header(token: str, where: str) -> str:
    """Check that a token can be sent, without showing it."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(
            f"{where} holds no token; allowed is one word of visible ASCII characters: put the "
            "token of the service account there"
        )
    return token


def _write(output: Output, folder: Path, files: Mapping[str, str], force: bool) -> list[str]:
    """Write files; what stands there and differs is replaced only if that is wanted."""
    differing = [
        str(folder / name) for name, text in files.items() if not _fits(folder / name, text)
    ]
    if differing and not force:
        raise ConfigurationError(
            f"{', '.join(differing[:3])}{' and others' if len(differing) > 3 else ''} would be "
            "replaced; give --force to do so, or another folder with --to; nothing was written"
        )
    written = []
    for name, text in files.items():
        path = folder / name
        try:
            if not path.exists() or not _fits(path, text):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                written.append(name)
        except OSError as error:
            raise ConfigurationError(
                f"{path} cannot be written ({error.strerror}); give another folder with --to"
            ) from error
    same = len(files) - len(written)
    output.show(
        f"{count(len(written), 'file')} written to {folder}"
        f"{f', {same:,} as they should be' if same else ''}"
    )
    output.document({"folder": folder, "files": list(files), "written": written})
    return written


def _fits(path: Path, text: str) -> bool:
    """Whether a file may be written: it is not there, or says the same."""
    try:
        return path.read_text(encoding="utf-8") == text
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError):
        return False


def _note_version(output: Output, version: str) -> None:
    major = version.partition(".")[0]
    if major.isdigit() and int(major) not in _TESTED:
        output.note(
            f"this is Grafana {version}; the calls were checked against the documentation of "
            f"{_TESTED.start} to {_TESTED.stop - 1}"
        )


def _show_pushed(output: Output, items: tuple[Item, ...]) -> None:
    changed = [item for item in items if item.state is not State.SAME]
    for item in changed:
        done = "created" if item.state is State.MISSING else "brought up to date"
        output.show(f"{item.kind} {item.name}: {done}")
    if not changed:
        output.show("nothing to change: Grafana has all of it already")
    output.document({"changed": len(changed), "items": [_said(item) for item in items]})


def _show_compared(output: Output, items: tuple[Item, ...]) -> None:
    wrong = [item for item in items if item.state is not State.SAME]
    for item in wrong:
        output.show(f"{item.kind} {item.name}: {item.state}")
        for sentence in item.differences[:_TOLD]:
            output.show(f"  {sentence}")
        if len(item.differences) > _TOLD:
            output.show(f"  and {len(item.differences) - _TOLD:,} more: see --json")
    if not wrong:
        output.show("no difference")
    output.document({"different": len(wrong), "items": [_said(item) for item in items]})
    if wrong:
        output.note("Grafana differs; 'calidrift dashboards push' brings it up to date")
        raise typer.Exit(ExitCode.REFUSED)


def _pull(
    output: Output, grafana: Grafana, config: GrafanaConfig, folder: Path, force: bool
) -> None:
    files, missing = pull(grafana, config)
    if missing:
        output.note(f"not in Grafana: {', '.join(missing)}")
    _write(output, folder, files, force)


def _said(item: Item) -> dict[str, object]:
    return dataclasses.asdict(item)
