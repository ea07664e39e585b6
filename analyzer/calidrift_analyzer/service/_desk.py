"""What commands ask and order: on the database where it is free, else through the service."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, final
from urllib.parse import quote, urlencode

from pydantic import ValidationError

from calidrift_agent._command_line import jsonable
from calidrift_analyzer.config import AnalyzerConfig, ModelContract, service_tokens
from calidrift_analyzer.deploy import Courier, check_hook
from calidrift_analyzer.errors import (
    ConfigurationError,
    NoDataError,
    RefusedError,
    StoreBusyError,
)
from calidrift_analyzer.jobs import (
    DirectDatabase,
    Order,
    approve,
    cancel,
    freeze,
    order_job,
    require_job,
    tell_again,
)
from calidrift_analyzer.records import DeployState, JobKind, Trigger
from calidrift_analyzer.service._gate import USER_HEADER, user_header
from calidrift_analyzer.service._listing import view_audit
from calidrift_analyzer.service._opening import Held, open_or_find
from calidrift_analyzer.service._payloads import MarkOrder, MuteOrder, UnmuteOrder
from calidrift_analyzer.service._reading import (
    ViewContext,
    known_models,
    view_freeze,
    view_job,
    view_jobs,
)
from calidrift_analyzer.service._remarks import (
    end_mutes,
    set_marker,
    set_mute,
    view_markers,
    view_mutes,
)
from calidrift_analyzer.service._tokens import Scope, Tokens
from calidrift_analyzer.store import Store

__all__ = ["Desk", "LocalDesk", "RemoteDesk", "open_desk"]

_TIMEOUT_SECONDS: Final = 30.0
_PLACES: Final = {"mute": "/mutes", "unmute": "/mutes/end", "mark": "/marks"}
_EVERY: Final = {"all_mutes": "/mutes?every=true"}
Document = dict[str, Any]


class Desk(Protocol):
    """Takes orders of people, and answers with JSON documents of the API."""

    def read(self, what: str, model: str | None = None, job: int | None = None) -> Document:
        """Give a list, or with a number one `job`.

        Args:
            what: `models`, `jobs`, `audit`, `freezes`, `mutes`, `all_mutes` or `marks`.
            model: Only what is about this one.
            job: Number of a job.
        """
        ...

    def change(self, what: str, subject: str, body: Mapping[str, Any]) -> Document:
        """Do what is asked for: one of the words below.

        Args:
            what: `order`, `approve`, `cancel`, `freeze`, `deploy`, `mute`, `unmute` or `mark`; of a
                service also `rollback`.
            subject: Model, or number of the job.
            body: As in the API.

        Raises:
            NoDataError: There is no such job or model.
            RefusedError: It cannot be done now.
        """
        ...


@contextmanager
def open_desk(
    config: AnalyzerConfig, actor: str, *, url: str | None = None, token_file: Path | None = None
) -> Iterator[Desk]:
    """Give whoever can take orders now.

    Args:
        config: The configuration.
        actor: Who orders, for the audit.
        url: The service; where given, the database here is not looked at.
        token_file: File with the token to send; where left out, one of the service's own tokens
            file that has the scope.

    Raises:
        StoreBusyError: Another process than the configured service holds the database.
        ConfigurationError: The service cannot be reached.
    """
    if url is not None:
        yield RemoteDesk(config, url, token_file, actor=actor)
        return
    found = open_or_find(config)
    if isinstance(found, Held):
        yield RemoteDesk(config, _asked(found), token_file, found.busy, actor=actor)
        return
    with found as store:
        yield LocalDesk(config, store, actor)


@final
class LocalDesk:
    """Works on the database itself, while no service runs.

    Args:
        config: The configuration.
        store: The database.
        actor: Who orders.
    """

    def __init__(self, config: AnalyzerConfig, store: Store, actor: str) -> None:
        self._config = config
        self._store = store
        self._actor = actor

    def read(self, what: str, model: str | None = None, job: int | None = None) -> Document:
        """Give a list, or with a number one `job`."""
        context = ViewContext(config=self._config)
        if job is not None:
            return _document(view_job(self._store, context, job))
        if what == "jobs":
            return _document(view_jobs(self._store, context, model, None, 50))
        if what == "audit":
            return _document(view_audit(self._store, model, None, 50))
        if what == "models":
            names = known_models(self._store, self._config)
            return {"items": [{"model": name} for name in names]}
        if what in ("mutes", "all_mutes"):
            every = what == "all_mutes"
            return {"items": jsonable(view_mutes(self._store, model, every=every))}
        if what == "marks":
            return {"items": jsonable(view_markers(self._store, model))}
        return {"items": jsonable([view_freeze(row) for row in self._store.jobs.freezes()])}

    def change(self, what: str, subject: str, body: Mapping[str, Any]) -> Document:
        """Do what is asked for."""
        note = str(body.get("note", ""))
        if what == "order":
            return self._order(subject, JobKind(body.get("kind", JobKind.RECALIBRATION)), note)
        if what == "freeze":
            model = self._config.model(subject).name if subject else ""
            row = freeze(
                self._store, model, frozen=bool(body["frozen"]), actor=self._actor, note=note
            )
            return _document(view_freeze(row))
        if what == "deploy":
            return self._deploy(self._config.model(subject or None), note)
        if what in _PLACES:
            return self._remark(what, {**body, "model": subject})
        job = int(subject)
        if what == "approve":
            contract = self._config.model(require_job(self._store, job).model)
            approve(self._store, contract, job, actor=self._actor, note=note)
        else:
            cancel(self._store, job, actor=self._actor, note=note)
        return _document(view_job(self._store, ViewContext(config=self._config), job))

    def _remark(self, what: str, body: Mapping[str, Any]) -> Document:
        store, config, actor = self._store, self._config, self._actor
        try:
            if what == "mute":
                return _document(set_mute(store, config, MuteOrder(**body), actor))
            if what == "unmute":
                return _document(end_mutes(store, config, UnmuteOrder(**body), actor))
            return _document(set_marker(store, config, MarkOrder(**body), actor))
        except ValidationError as error:
            one = error.errors()[0]
            where = ".".join(str(part) for part in one["loc"])
            raise ConfigurationError(f"{where}: {one['msg']}; correct it") from error

    def _deploy(self, contract: ModelContract, note: str) -> Document:
        check_hook(contract)
        sentence = tell_again(self._store, contract, actor=self._actor, note=note)
        told = Courier(DirectDatabase(self._store), contract).deliver()
        if told is not None:
            sentence = f"{sentence}; {told.state}: {told.sentence}"
        if told is not None and told.state is DeployState.FAILED:
            raise RefusedError(sentence)
        return {"model": contract.name, "job": None, "sentence": sentence}

    def _order(self, subject: str, kind: JobKind, note: str) -> Document:
        order = Order(
            model=self._config.model(subject or None).name,
            kind=kind,
            trigger=Trigger.COMMAND,
            cause=note,
            actor=self._actor,
        )
        answer = order_job(self._store, order, self._config.service)
        if answer.refused:
            raise RefusedError(answer.sentence)
        return {
            "model": order.model,
            "job": answer.job,
            "sentence": f"{answer.sentence}; it begins when `calidrift serve` runs",
        }


@final
class RemoteDesk:
    """Asks the running service.

    Args:
        config: The configuration.
        url: Address of the service.
        token_file: File with the token to send.
        busy: Why the database itself was not used; told where no service answers.
        actor: Who orders; a service without tokens keeps it for the audit.
    """

    def __init__(
        self,
        config: AnalyzerConfig,
        url: str,
        token_file: Path | None = None,
        busy: StoreBusyError | None = None,
        *,
        actor: str = "",
    ) -> None:
        self._config = config
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._busy = busy
        self._user = user_header(actor)
        # Never through a proxy of the environment: the token would go there, too.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def read(self, what: str, model: str | None = None, job: int | None = None) -> Document:
        """Give a list, or with a number one `job`."""
        if job is not None:
            return self._ask(f"/jobs/{job}", Scope.READ)
        place = _EVERY.get(what, f"/{what}")
        asked = "" if model is None else urlencode({"model": model})
        joint = "" if not asked else "&" if "?" in place else "?"
        return self._ask(f"{place}{joint}{asked}", Scope.READ)

    def change(self, what: str, subject: str, body: Mapping[str, Any]) -> Document:
        """Do what is asked for."""
        if what == "order":
            model = self._config.model(subject or None).name
            return self._ask("/jobs", Scope.TRIGGER, {**body, "model": model})
        if what == "freeze":
            return self._ask("/freezes", Scope.PROMOTE, {**body, "model": subject})
        if what in ("deploy", "rollback"):
            model = self._config.model(subject or None).name
            return self._ask(f"/models/{quote(model, safe='')}/{what}", Scope.PROMOTE, body)
        if what in _PLACES:
            return self._ask(_PLACES[what], Scope.TRIGGER, {**body, "model": subject})
        return self._ask(f"/jobs/{quote(subject)}/{what}", Scope.PROMOTE, body)

    def _ask(self, path: str, scope: Scope, body: Mapping[str, Any] | None = None) -> Document:
        headers = {"Accept": "application/json"}
        token = self._token(scope)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        elif self._user:
            headers[USER_HEADER] = self._user
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            request = urllib.request.Request(f"{self._url}/api/v1{path}", data, headers)
            with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error.code, _detail(error.read())) from error
        except (OSError, ValueError) as error:
            if self._busy is not None:
                raise self._busy from error
            raise ConfigurationError(
                f"no service answers at {self._url} ({error}); start `calidrift serve`, or correct "
                "--url"
            ) from error
        return found if isinstance(found, dict) else {"items": found}

    def _token(self, scope: Scope) -> str | None:
        if self._token_file is not None:
            try:
                return self._token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"the token file {self._token_file} cannot be read ({error}); correct "
                    "--token-file"
                ) from error
        return Tokens.load(self._config.service.tokens, service_tokens()).secret_for(scope)


def _asked(held: Held) -> str:
    if held.url is None:
        raise StoreBusyError(
            f"{held.who}; wait until it has finished, or, where that is `calidrift serve` (port = "
            "0: its address is not known here), give the address that it printed at its start: "
            "--url http://127.0.0.1:PORT"
        )
    return held.url


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return "the service gave no reason"


def _refusal(status: int, detail: str) -> Exception:
    if status == 404:
        return NoDataError(detail)
    if status == 409:
        return RefusedError(detail)
    return ConfigurationError(f"{detail} (HTTP {status})")


def _document(view: object) -> Document:
    found: Document = jsonable(view)
    return found
