"""The switch that forbids moves, looked at before a command makes one."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from calidrift_analyzer.cli._output import Output
from calidrift_analyzer.cli._person import user_name
from calidrift_analyzer.config import AnalyzerConfig
from calidrift_analyzer.deploy import FileDatabase
from calidrift_analyzer.errors import RefusedError, StoreError
from calidrift_analyzer.jobs import audit_row
from calidrift_analyzer.records import AuditRow, DeployAction
from calidrift_analyzer.service import RemoteDesk, open_desk

__all__ = ["require_thawed"]


def require_thawed(
    out: Output,
    config: AnalyzerConfig,
    model: str,
    action: DeployAction,
    url: str | None,
    token_file: Path | None,
) -> RemoteDesk | None:
    """Refuse a move of a model that is frozen.

    A database that cannot be read is a remark: going back must be possible when it is broken. A
    rollback is the running service's to make, and to refuse.

    Args:
        out: Where to say it.
        config: The configuration.
        model: Name of the model.
        action: What is to be done.
        url: The service; by default the configured one, where it holds the database.
        token_file: File with the token to send to it.

    Returns:
        The running service; `None` where none runs.

    Raises:
        RefusedError: The model, or every model, is frozen. It is in the audit.
        ConfigurationError: The service does not answer this caller.
    """
    try:
        with open_desk(config, user_name(), url=url, token_file=token_file) as desk:
            remote = desk if isinstance(desk, RemoteDesk) else None
            if remote is not None and action is DeployAction.ROLLBACK:
                return remote
            switches = desk.read("freezes")["items"]
    except StoreError as error:
        out.note(f"whether {model} is frozen could not be looked up: {error}")
        return None
    for switch in switches:
        if switch["frozen"] and switch["model"] in ("", model):
            sentence = _sentence(switch)
            with suppress(StoreError):  # a service holds it: nothing was changed, and it is said
                _note(
                    config, audit_row(user_name(), action.value, model, "", sentence, refused=True)
                )
            raise RefusedError(sentence)
    return remote


def _note(config: AnalyzerConfig, row: AuditRow) -> None:
    FileDatabase(config.database).run(lambda store: store.jobs.note(row))


def _sentence(switch: dict[str, Any]) -> str:
    what, actor = switch["model"] or "every model", switch["actor"]
    why = f" ({switch['note']})" if switch["note"] else ""
    thaw = f"calidrift jobs thaw {switch['model']}".rstrip()
    return f"{what} was frozen by {actor}{why}; thaw it first: {thaw}"
