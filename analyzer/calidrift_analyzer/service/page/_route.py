"""What all pages have in common: safe headers, and errors that people can read."""

import logging
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final, final

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from calidrift_agent.errors import CalidriftError as AgentError
from calidrift_analyzer.errors import CalidriftError
from calidrift_analyzer.service._problems import of_error
from calidrift_analyzer.service.page._rendering import render

__all__ = ["HEADERS", "PageRoute", "came_from", "sign_in_page"]

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Not `no-referrer`: browsers would then send the origin of a form as `null`.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_UNSAFE: Final = frozenset("\\\x7f")
_log = logging.getLogger(__name__)
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@final
class PageRoute(APIRoute):
    """Answers a browser: whatever goes wrong is a page as well."""

    def get_route_handler(self) -> _Handler:
        """Give what answers a request."""
        answer = super().get_route_handler()

        async def safely(request: Request) -> Response:
            try:
                response = await answer(request)
            except HTTPException as error:
                response = _refusal(request, error)
            except ClientDisconnect:
                response = error_page(400, "this form did not come whole; send it again")
            except RequestValidationError:
                response = error_page(404, "there is no such page; begin at the overview")
            except (CalidriftError, AgentError) as error:
                problem = of_error(error)
                response = error_page(problem.status_code, str(error))
                if "retry-after" in problem.headers:
                    response.headers["Retry-After"] = problem.headers["retry-after"]
            except Exception:
                _log.exception("a page failed by a defect")
                response = error_page(500, "a defect of Calidrift; its log has the traceback")
            response.headers.update(HEADERS)
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        return safely


def error_page(status: int, sentence: str) -> Response:
    """Give a page that says what went wrong."""
    return render(
        "error.html", status, title=HTTPStatus(status).phrase, sentence=sentence, viewer=None
    )


def sign_in_page(
    target: str, status: int, sentence: str | None = None, *, again: bool = False
) -> Response:
    """Give the form that asks for a token.

    Args:
        target: Where to go afterwards.
        status: Status of the response.
        sentence: What was wrong with the last try.
        again: Whether to ask once more from this site: browsers keep the cookie back where a
            link of another site was followed.
    """
    return render(
        "sign_in.html", status, target=target, sentence=sentence, again=again, viewer=None
    )


def came_from(text: str) -> str:
    """Give the page to go to after a form: a path of this site, else the overview.

    >>> came_from("/models/net?hours=24"), came_from("//evil.example")
    ('/models/net?hours=24', '/')
    """
    inside = text.startswith("/") and not text.startswith("//") and not _UNSAFE & set(text)
    return text if inside and text.isprintable() and text.isascii() else "/"


def _refusal(request: Request, error: HTTPException) -> Response:
    if error.status_code == HTTPStatus.UNAUTHORIZED:
        target = request.url.path if request.method == "GET" else "/"
        quoted = request.scope.get("raw_path", target.encode()).decode("ascii", "replace")
        asked = f"{quoted}?{request.url.query}" if request.url.query else quoted
        foreign = request.headers.get("sec-fetch-site") == "cross-site"
        response = sign_in_page(
            came_from(asked if request.method == "GET" else "/"),
            error.status_code,
            again=foreign and request.method == "GET",
        )
    else:
        response = error_page(error.status_code, str(error.detail))
    for name, value in (error.headers or {}).items():
        if name.lower() != "www-authenticate":  # a browser would ask in a window of its own
            response.headers[name] = value
    return response
