"""Names in paths: a slash inside a name is another thing than one between two names.

Points of ONNX graphs are called `/layer1/Conv:input`, and a model may have any name. Links write
such a slash as `%2F`, but servers decode the whole path before it is taken apart; then the point
`points/x` of the model `net` cannot be told from the point `x` of the model `net/points`. So the
path is taken apart first. A proxy in front of the service must pass `%2F` on as it is.
"""

from typing import Final, final
from urllib.parse import unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["NamePaths", "register_names"]

_MARK: Final = "\ue000"
_SLASH: Final = f"{_MARK}0"
_LITERAL: Final = f"{_MARK}1"


def register_names() -> None:
    """Let paths have parameters that are one name each, `{model:name}`; before the first route."""
    register_url_convertor("name", _NameConvertor())


@final
class NamePaths:
    """Middleware that takes paths apart before they are decoded.

    A slash inside a part travels on as a mark, which parameters of the convertor `name` turn back.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        raw = scope.get("raw_path")
        if scope["type"] == "http" and raw and b"%" in raw:
            parts = (_closed(unquote(part)) for part in raw.decode("ascii", "replace").split("/"))
            scope = {**scope, "path": "/".join(parts)}
        await self._app(scope, receive, send)


@final
class _NameConvertor(Convertor[str]):
    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return value.replace(_SLASH, "/").replace(_LITERAL, _MARK)

    def to_string(self, value: str) -> str:
        return _closed(value)


def _closed(part: str) -> str:
    return part.replace(_MARK, _LITERAL).replace("/", _SLASH)
