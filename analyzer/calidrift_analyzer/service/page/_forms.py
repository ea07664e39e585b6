"""What all forms have in common: who may send them, and how they are read."""

from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import HTTPException, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from calidrift_analyzer.service._payloads import RollbackOrder
from calidrift_analyzer.service._tokens import Scope
from calidrift_analyzer.service.page._rendering import link, render
from calidrift_analyzer.service.page._sessions import check_form, check_origin, sessions_of
from calidrift_analyzer.service.page._viewers import Viewer, enter

__all__ = ["SEE_OTHER", "Form", "decide", "order_of", "read_form", "show", "with_form"]

SEE_OTHER: Final = 303
_MOST_BYTES: Final = 16_384
_MOST_FIELDS: Final = 16
Form = dict[str, str]


def with_form(request: Request, viewer: Viewer, template: str, **values: Any) -> Response:
    """Give a page with a form; who needs no token gets a session with the first one."""
    sessions = sessions_of(request)
    if viewer.session is None:
        viewer = viewer.with_session(sessions.open(None))
    response = render(template, viewer=viewer, **values)
    if viewer.session is not None and not viewer.signed_in:
        sessions.send(request, response, viewer.session)
    return response


async def decide(request: Request, scope: Scope = Scope.PROMOTE) -> tuple[Viewer, Form]:
    """Take a form that decides something.

    Raises:
        HTTPException: It is of another site or session, or its sender may not decide.
    """
    check_origin(request)
    viewer = enter(request, scope)
    form = await read_form(request)
    check_form(viewer.session, form.get("form_token", ""))
    return viewer, form


async def read_form(request: Request) -> Form:
    """Read the fields of a form.

    Raises:
        HTTPException: 400, 413 or 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "send this form as application/x-www-form-urlencoded")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise HTTPException(413, f"a form may have {_MOST_BYTES} bytes; say it in fewer words")
    try:
        fields = parse_qs(
            body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise HTTPException(400, "this form cannot be read; open its page again") from error
    return {name: values[-1] for name, values in fields.items()}


def order_of(form: Form) -> RollbackOrder:
    """Check what was written into a form.

    Raises:
        HTTPException: 400.
    """
    try:
        return RollbackOrder(note=form.get("note", "").strip(), to=form.get("to"))
    except ValidationError as error:
        raise HTTPException(
            400, "a note may have 500 characters on one line; nothing was changed, go back"
        ) from error


def show(*parts: object) -> Response:
    """Send a browser to a page after its form was taken."""
    return RedirectResponse(link(*parts) or "/", SEE_OTHER)
