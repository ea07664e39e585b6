"""Lets browsers in, by the gate of the API."""

from dataclasses import dataclass, replace
from typing import final

from fastapi import Request

from calidrift_analyzer.service._gate import gate_of
from calidrift_analyzer.service._tokens import Scope
from calidrift_analyzer.service.page._sessions import Session, sessions_of

__all__ = ["Viewer", "enter"]


@final
@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at a page.

    Attributes:
        name: Name of the token, or `local`.
        may_promote: Whether decisions are theirs to make.
        may_trigger: Whether they may ask for jobs.
        session: Their session; `None` on this machine before the first form.
    """

    name: str
    may_promote: bool
    may_trigger: bool
    session: Session | None

    @property
    def signed_in(self) -> bool:
        """Whether they can sign out."""
        return self.session is not None and self.session.secret is not None

    @property
    def form_token(self) -> str:
        """What their forms must carry."""
        return "" if self.session is None else self.session.form_token

    def with_session(self, session: Session) -> "Viewer":
        """Give the same person in a session."""
        return replace(self, session=session)


def enter(request: Request, scope: Scope = Scope.READ) -> Viewer:
    """Let a browser in, each time by the token that it signed in with.

    Raises:
        HTTPException: 401, 403 or 429, as in the API.
    """
    session = sessions_of(request).find(request)
    secret = None if session is None else session.secret
    caller = gate_of(request).admit(request, secret, scope)
    return Viewer(
        name=caller.name,
        may_promote=Scope.PROMOTE in caller.scopes,
        may_trigger=Scope.TRIGGER in caller.scopes,
        session=session,
    )
