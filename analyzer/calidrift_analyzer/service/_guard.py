"""Asking who it is before anything of a request's body is read."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, final

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from calidrift_analyzer.service._gate import Credentials, bearer_scheme, gate_of
from calidrift_analyzer.service._tokens import Caller, Scope

__all__ = ["Guard", "GuardedRoute", "requires"]

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@final
class Guard:
    """A dependency that lets callers in, once for each request.

    Args:
        admit: Lets a request with a token in, or raises `HTTPException`.
    """

    def __init__(self, admit: Callable[[Request, str | None], Awaitable[Caller]]) -> None:
        self._admit = admit

    async def __call__(self, request: Request, credentials: Credentials) -> Caller:
        """Let a caller in.

        Raises:
            HTTPException: 400, 401, 403, 429 or 503.
        """
        admitted: tuple[Guard, Caller] | None = getattr(request.state, "admitted", None)
        if admitted is not None and admitted[0] is self:
            return admitted[1]
        sent = None if credentials is None else credentials.credentials
        caller = await self._admit(request, sent)
        request.state.admitted = (self, caller)
        return caller


@final
class GuardedRoute(APIRoute):
    """Asks its guards first: FastAPI would read and parse a declared body before them."""

    def get_route_handler(self) -> _Handler:
        """Give what answers a request."""
        answer = super().get_route_handler()
        guards = [one.call for one in self.dependant.dependencies if isinstance(one.call, Guard)]

        async def after_guards(request: Request) -> Response:
            for guard in guards:
                await guard(request, await bearer_scheme(request))
            return await answer(request)

        return after_guards


def requires(scope: Scope) -> Guard:
    """Give a dependency that lets in callers with a scope."""

    async def admit(request: Request, sent: str | None) -> Caller:
        return gate_of(request).admit(request, sent, scope)

    return Guard(admit)
