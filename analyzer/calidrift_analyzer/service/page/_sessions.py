"""Who looks at the pages: sessions on this side, an opaque number in a cookie on the other."""

import hmac
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, final
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.responses import Response

__all__ = ["COOKIE", "Session", "Sessions", "check_form", "check_origin", "sessions_of"]

COOKIE: Final = "calidrift_session"
_SECONDS: Final = 8 * 3_600
_MOST_SESSIONS: Final = 1_024
_BYTES: Final = 32


@final
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Session:
    """One browser.

    Attributes:
        key: What its cookie holds.
        secret: The token it signed in with; `None` on this machine, where none is needed.
        form_token: What every form that it sends must carry.
        ends: When it must sign in again, on the monotonic clock in seconds.
    """

    key: str
    secret: str | None
    form_token: str
    ends: float


@final
class Sessions:
    """All browsers; in memory, so that a restart signs everybody out.

    Args:
        seconds: How long a session lasts.
    """

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._all: OrderedDict[str, Session] = OrderedDict()

    def open(self, secret: str | None) -> Session:
        """Begin a session; of too many the oldest one ends."""
        session = Session(
            key=secrets.token_urlsafe(_BYTES),
            secret=secret,
            form_token=secrets.token_urlsafe(_BYTES),
            ends=time.monotonic() + self._seconds,
        )
        with self._lock:
            self._all[session.key] = session
            while len(self._all) > _MOST_SESSIONS:
                self._all.popitem(last=False)
        return session

    def find(self, request: Request) -> Session | None:
        """Give the session of a request; `None` where there is none, or it has ended."""
        key = request.cookies.get(COOKIE, "")
        with self._lock:
            found = self._all.get(key)
            if found is not None and time.monotonic() >= found.ends:
                del self._all[key]
                return None
        return found

    def close(self, session: Session) -> None:
        """End a session."""
        with self._lock:
            self._all.pop(session.key, None)

    def send(self, request: Request, response: Response, session: Session) -> None:
        """Put a session into the cookie of a response."""
        response.set_cookie(
            COOKIE,
            session.key,
            max_age=int(self._seconds),
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )


def sessions_of(request: Request) -> Sessions:
    """Give the sessions of the application that a request came to."""
    state = request.app.state
    found = getattr(state, "page_sessions", None)
    if not isinstance(found, Sessions):
        found = state.page_sessions = Sessions()
    return found


def check_origin(request: Request) -> None:
    """Refuse a form that another site's page sends.

    Raises:
        HTTPException: 403.
    """
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site")
    if origin is None:
        same = site == "same-origin"
    else:
        # Without the scheme: TLS may end at a proxy before this process.
        same = urlsplit(origin).netloc == request.headers.get("host", "")
    if not same or site not in (None, "same-origin"):
        raise HTTPException(403, "this form was sent by another site's page; nothing was changed")


def check_form(session: Session | None, sent: str) -> Session:
    """Refuse a form that no page of this session held.

    Raises:
        HTTPException: 403.
    """
    given = sent.encode("utf-8", "surrogatepass")
    if session is None or not hmac.compare_digest(given, session.form_token.encode()):
        raise HTTPException(
            403, "this form is of another session or too old; nothing was changed, open it again"
        )
    return session
