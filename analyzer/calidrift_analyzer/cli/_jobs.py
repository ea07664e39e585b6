"""`calidrift jobs`."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._output import Output
from calidrift_analyzer.cli._person import user_name
from calidrift_analyzer.cli._service_options import ServiceUrl, TokenFile
from calidrift_analyzer.config import load_config
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.records import JobKind
from calidrift_analyzer.service import Desk, open_desk

__all__ = ["jobs"]


class Action(StrEnum):
    """What to do."""

    LIST = "list"
    SHOW = "show"
    START = "start"
    APPROVE = "approve"
    CANCEL = "cancel"
    FREEZE = "freeze"
    THAW = "thaw"
    DEPLOY = "deploy"
    AUDIT = "audit"


def jobs(
    invocation: Invocation,
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.LIST,
    subject: Annotated[
        str | None, typer.Argument(help="Number of the job, or name of the model.")
    ] = None,
    note: Annotated[str, typer.Option(help="Why, for the audit.")] = "",
    revalidate: Annotated[
        bool, typer.Option("--revalidate", help="Start a re-validation of what serves.")
    ] = False,
    url: ServiceUrl = None,
    token_file: TokenFile = None,
) -> None:
    """List, start, approve and cancel recalibrations of the service; freeze models.

    `deploy` runs the hook of a model again, for the version that serves.

    While `calidrift serve` runs it is asked; otherwise the database is used directly, and what was
    ordered begins with the next start. Ends with status 1 where something is refused.
    """
    config = load_config(invocation.config)
    out = Output(invocation)
    with open_desk(config, user_name(), url=url, token_file=token_file) as desk:
        document = _do(desk, action, subject, note, revalidate=revalidate)
    _show(out, action, document)
    out.document(document)


def _do(
    desk: Desk, action: Action, subject: str | None, note: str, *, revalidate: bool
) -> dict[str, Any]:
    match action:
        case Action.LIST:
            return desk.read("jobs", subject)
        case Action.AUDIT:
            return desk.read("audit", subject)
        case Action.SHOW:
            return desk.read("jobs", job=_number(action, subject))
        case Action.START:
            kind = JobKind.REVALIDATION if revalidate else JobKind.RECALIBRATION
            return desk.change("order", subject or "", {"note": note, "kind": kind.value})
        case Action.FREEZE | Action.THAW:
            frozen = action is Action.FREEZE
            return desk.change("freeze", subject or "", {"note": note, "frozen": frozen})
        case Action.DEPLOY:
            return desk.change("deploy", subject or "", {"note": note})
        case Action.APPROVE | Action.CANCEL:
            job = str(_number(action, subject))
            return desk.change(action.value, job, {"note": note})


def _number(action: Action, subject: str | None) -> int:
    if subject is None or not subject.isascii() or not subject.isdecimal() or len(subject) > 15:
        raise ConfigurationError(
            f"`calidrift jobs {action.value}` needs the number of a job, got {subject!r}; list "
            "them with `calidrift jobs`"
        )
    return int(subject)


def _show(out: Output, action: Action, document: dict[str, Any]) -> None:
    match action:
        case Action.LIST:
            out.table(
                "Jobs, the newest first",
                ("job", "model", "kind", "state", "by", "updated", "what happened"),
                [
                    (
                        one["job"],
                        one["model"],
                        one["kind"],
                        one["state"].replace("_", " "),
                        one["actor"],
                        _time(one["updated"]),
                        one["sentence"],
                    )
                    for one in document["items"]
                ],
            )
        case Action.AUDIT:
            out.table(
                "Audit, the newest first",
                ("when", "who", "action", "model", "subject", "outcome", "what happened"),
                [
                    (
                        _time(one["at"]),
                        *(one[key] for key in ("actor", "action", "model", "subject", "outcome")),
                        one["sentence"],
                    )
                    for one in document["items"]
                ],
            )
        case Action.START | Action.DEPLOY:
            out.show(f"{document['model']}: {document['sentence']}")
        case Action.FREEZE | Action.THAW:
            word = "frozen" if document["frozen"] else "thawed"
            out.show(f"{document['model'] or 'every model'}: {word} by {document['actor']}")
        case _:
            _show_job(out, document)


def _show_job(out: Output, document: dict[str, Any]) -> None:
    job = document["job"]
    out.show(f"job {job['job']} of {job['model']}: {job['state'].replace('_', ' ')}")
    if job["progress"] is not None:
        found = job["progress"]
        out.show(f"at work: {found['what']} ({found['done']} of {found['total'] or '?'})")
    told = document.get("deployment")
    if told is not None:
        out.show(f"hook {told['state']} (tries: {told['attempts']}): {told['sentence']}")
        if told["output"]:
            out.show(told["output"])
    out.table(
        "Steps",
        ("when", "state", "what", "by", "what happened"),
        [
            (
                _time(step["at"]),
                step["state"].replace("_", " "),
                step["event"].replace("_", " "),
                step["actor"],
                step["sentence"],
            )
            for step in document["steps"]
        ],
    )


def _time(text: str | None) -> str:
    return "-" if text is None else text[:19].replace("T", " ")
