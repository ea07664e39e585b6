"""What the sidecar answers to an HTTP request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from prometheus_client import CollectorRegistry, make_wsgi_app

from calidrift_agent._sidecar._exposition import Exposition, Reading
from calidrift_agent._sidecar._token import BearerToken

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

_MOST_RENDERINGS: Final = 8
_ASKED: Final = ("HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING", "QUERY_STRING")
"""What decides how figures are written."""
_PLAIN: Final = ("Content-Type", "text/plain; charset=utf-8")

Headers: TypeAlias = list[tuple[str, str]]
Answer: TypeAlias = tuple[str, Headers, bytes]


@final
class MetricsApplication:
    """Serves `/metrics` as `prometheus_client` does, and `/healthz`.

    Figures that were written once are sent again to everybody who asks for the same form within
    a second. `/healthz` says that the process answers; it asks for no token and tells nothing.

    Args:
        exposition: The figures.
        token: What readers of the figures have to know; None: nothing.
    """

    def __init__(self, exposition: Exposition, token: BearerToken | None) -> None:
        registry = CollectorRegistry()
        registry.register(exposition)
        self._prometheus = make_wsgi_app(registry)
        self._exposition = exposition
        self._token = token
        self._lock = threading.Lock()
        self._rendered_of: Reading | None = None
        self._rendered: dict[tuple[str, ...], Answer] = {}

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (WSGI)."""
        if environ.get("REQUEST_METHOD") == "HEAD":
            status, headers, body = self._answer({**environ, "REQUEST_METHOD": "GET"})
            start_response(status, [*headers, ("Content-Length", str(len(body)))])
            return []
        status, headers, body = self._answer(environ)
        start_response(status, headers)
        return [body]

    def _answer(self, environ: dict[str, Any]) -> Answer:
        path = environ.get("PATH_INFO", "")
        if path == "/healthz":
            return "200 OK", [_PLAIN], b"ok\n"
        if self._token is not None and not self._token.admits(environ.get("HTTP_AUTHORIZATION")):
            wanted = ("WWW-Authenticate", 'Bearer realm="calidrift"')
            return "401 Unauthorized", [_PLAIN, wanted], b"a bearer token is needed\n"
        if path != "/metrics":
            return "404 Not Found", [_PLAIN], b"figures are at /metrics\n"
        if environ.get("REQUEST_METHOD") != "GET":
            return _call(self._prometheus, environ)
        return self._figures(environ)

    def _figures(self, environ: Mapping[str, Any]) -> Answer:
        asked = tuple(str(environ.get(name, "")) for name in _ASKED)
        with self._lock:
            reading = self._exposition.reading()
            if reading is not self._rendered_of:
                self._rendered_of = reading
                self._rendered.clear()
            answer = self._rendered.get(asked)
            if answer is None:
                answer = self._render(environ)
                if len(self._rendered) < _MOST_RENDERINGS:
                    self._rendered[asked] = answer
            return answer

    def _render(self, environ: Mapping[str, Any]) -> Answer:
        try:
            return _call(self._prometheus, environ)
        except Exception:  # a header that the library does not understand
            return _call(self._prometheus, {**environ, **dict.fromkeys(_ASKED, "")})


def _call(
    application: Callable[[Mapping[str, Any], Callable[..., None]], Iterable[bytes]],
    environ: Mapping[str, Any],
) -> Answer:
    """The whole answer of a WSGI application."""
    begun: list[tuple[str, Headers]] = []
    body = b"".join(application(environ, lambda status, headers: begun.append((status, headers))))
    return *begun[0], body
