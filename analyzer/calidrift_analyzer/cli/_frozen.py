"""The switch that forbids moves, looked at before a command makes one."""

from pathlib import Path

from calidrift_analyzer.cli._output import Output
from calidrift_analyzer.cli._person import user_name
from calidrift_analyzer.config import AnalyzerConfig
from calidrift_analyzer.errors import RefusedError, StoreError
from calidrift_analyzer.service import RemoteDesk, open_desk

__all__ = ["require_thawed"]


def require_thawed(
    out: Output, config: AnalyzerConfig, model: str, url: str | None, token_file: Path | None
) -> RemoteDesk | None:
    """Refuse a move of a model that is frozen.

    A database that cannot be read is a remark: going back must be possible when it is broken.

    Args:
        out: Where to say it.
        config: The configuration.
        model: Name of the model.
        url: The service; by default the configured one, where it holds the database.
        token_file: File with the token to send to it.

    Returns:
        The running service; `None` where none runs.

    Raises:
        RefusedError: The model, or every model, is frozen.
        ConfigurationError: The service does not answer this caller.
    """
    try:
        with open_desk(config, user_name(), url=url, token_file=token_file) as desk:
            switches = desk.read("freezes")["items"]
    except StoreError as error:
        out.note(f"whether {model} is frozen could not be looked up: {error}")
        return None
    for switch in switches:
        if switch["frozen"] and switch["model"] in ("", model):
            what, name = switch["model"] or "every model", switch["model"]
            why = f" ({switch['note']})" if switch["note"] else ""
            thaw = f"calidrift jobs thaw {name}".rstrip()
            raise RefusedError(
                f"{what} was frozen by {switch['actor']}{why}; thaw it first: {thaw}"
            )
    return desk if isinstance(desk, RemoteDesk) else None
