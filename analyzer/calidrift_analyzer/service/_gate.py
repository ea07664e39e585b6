"""Lets callers in: who they are, what they may do, and how often."""

import math
from dataclasses import replace
from typing import Annotated, Final, final
from urllib.parse import quote, unquote

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from calidrift_analyzer.config import LOOPBACK
from calidrift_analyzer.service._limits import RateLimit, UnknownBodies
from calidrift_analyzer.service._problems import RETRY_SECONDS
from calidrift_analyzer.service._tokens import Caller, Scope, TokenFile

__all__ = ["USER_HEADER", "Gate", "bearer_scheme", "gate_of", "user_header"]

_LOCAL: Final = Caller("local", frozenset(Scope))
_LONGEST_USER: Final = 64
USER_HEADER: Final = "X-Calidrift-User"
"""Who asks where there are no tokens, percent-encoded: a claim, so the audit adds `(local)`."""
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
bearer_scheme: Final = HTTPBearer(auto_error=False, description="A token with the scope it needs.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer_scheme)]


@final
class Gate:
    """Knows callers by their tokens.

    Without any token everything is allowed to this machine, and to nobody who only makes a
    browser on it ask: a foreign `Host` or `Origin` is refused.

    Args:
        tokens: Where the tokens are; looked at for each request.
        limit: How often one caller may ask.
        bodies: Reads bodies that may turn out to be signed.
    """

    def __init__(
        self, tokens: TokenFile, limit: RateLimit, bodies: UnknownBodies | None = None
    ) -> None:
        self._tokens = tokens
        self._limit = limit
        self._bodies = bodies or UnknownBodies()

    def admit(self, request: Request, sent: str | None, scope: Scope) -> Caller:
        """Let in who sent a token.

        Raises:
            HTTPException: 400, 401, 403 or 429.
        """
        tokens = self._tokens.current()
        if not self._tokens.guarded:
            # Counted as one caller, by whatever names it asks.
            caller = self._allow(request, self._local(request), scope)
            return replace(caller, name=_local_name(request))
        return self._allow(request, None if sent is None else tokens.bearer(sent), scope)

    async def admit_signed(self, request: Request, scope: Scope) -> Caller:
        """Let in who signed a body; it is read only where its headers may be right.

        Raises:
            HTTPException: 400, 401, 403, 429 or 503.
        """
        tokens = self._tokens.current()
        if not tokens.signable(request.headers):
            return self._allow(request, None, scope)
        body = await self._bodies.read(request)
        if body is None:
            self._count(request, None)
            raise HTTPException(
                503,
                "the signed body did not come in time, or too many came at once; send it again",
                {"Retry-After": str(RETRY_SECONDS)},
            )
        return self._allow(request, tokens.signed(request.headers, body), scope)

    def _allow(self, request: Request, caller: Caller | None, scope: Scope) -> Caller:
        self._count(request, caller)
        if caller is None:
            raise HTTPException(
                401,
                "a token is needed, and must not have expired: send `Authorization: Bearer ...`",
                {"WWW-Authenticate": 'Bearer realm="calidrift"'},
            )
        if scope not in caller.scopes:
            raise HTTPException(
                403, f"the token {caller.name!r} lacks the scope {scope.value!r}; use another one"
            )
        return caller

    def _count(self, request: Request, caller: Caller | None) -> None:
        """Take one request off what its sender may still ask."""
        address = "" if request.client is None else request.client.host
        wait = self._limit.admit(f"address {address}" if caller is None else f"name {caller.name}")
        if wait:
            raise HTTPException(
                429,
                f"more requests than requests_per_minute allows; ask again in {wait:.1f} s",
                {"Retry-After": str(math.ceil(wait))},
            )

    def _local(self, request: Request) -> Caller:
        if request.url.hostname not in LOOPBACK:
            raise HTTPException(
                403, "without tokens only this machine may ask, by the name localhost or 127.0.0.1"
            )
        origin = request.headers.get("origin")
        own = f"{request.url.scheme}://{request.headers.get('host', '')}"
        if request.method not in _SAFE and origin is not None and origin != own:
            raise HTTPException(403, "another site's page may not change anything here")
        return _LOCAL


def user_header(name: str) -> str:
    """Write a person's name for the header; empty where there is none to tell."""
    shown = "".join(sign for sign in name if sign.isprintable()).strip()[:_LONGEST_USER]
    return "" if shown == _LOCAL.name else quote(shown, safe="")


def _local_name(request: Request) -> str:
    sent = request.headers.get(USER_HEADER)
    if sent is None:
        return _LOCAL.name
    name = unquote(sent).strip()
    if not name or len(name) > _LONGEST_USER or not name.isprintable():
        raise HTTPException(
            400,
            f"{USER_HEADER} must be a name of at most {_LONGEST_USER} printable characters, "
            "percent-encoded; correct it, or leave it out",
        )
    return f"{name} ({_LOCAL.name})"


def gate_of(request: Request) -> Gate:
    """Give the gate of the application that a request came to."""
    gate: Gate = request.app.state.gate
    return gate
