"""The one place that talks to Grafana: `grafana-api`, its traps, retries, and errors in words."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, final
from urllib.parse import quote, urlsplit

import requests
from grafana_api.grafana_api import GrafanaClientError, GrafanaException, GrafanaServerError
from grafana_api.grafana_face import GrafanaFace
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from calidrift_analyzer.errors import ConfigurationError, GrafanaConflictError, GrafanaError

__all__ = ["Grafana", "Patience", "SavedDashboard"]

_EDITABLE: Final = {"X-Disable-Provenance": "true"}
"""Keeps what is pushed editable in Grafana's pages; `diff` shows what people changed."""
_TIMEOUT_SECONDS: Final = 10.0
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_TOO_MANY: Final = 429
_CONFLICTS: Final = frozenset({409, 412})
_FROM_FILES: Final = ("provisioned", "provenance")
_MESSAGE: Final = "calidrift dashboards push"

_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True)
class Patience:
    """How long a Grafana that stumbles is asked again.

    Attributes:
        attempts: Most requests for one answer.
        first_seconds: Wait before the second one; it doubles, up to 5 s.
    """

    attempts: int = 5
    first_seconds: float = 0.3


@final
@dataclass(frozen=True, slots=True)
class SavedDashboard:
    """A dashboard as Grafana has it.

    Attributes:
        document: Its JSON, with Grafana's `id` and `version`.
        folder: Uid of its folder; empty for the top.
    """

    document: Mapping[str, Any]
    folder: str

    @property
    def version(self) -> int:
        """Counts its changes; a save on top of an older one is refused."""
        return int(self.document.get("version", 0))


@final
class Grafana:
    """A Grafana that answered. Use it as a context manager: it closes its connections.

    Paths are those of the `/api` of Grafana 11 to 13, and all stand in this class.

    Args:
        url: Base address, with its path where Grafana is served below one.
        token: Token of a service account.
        patience: How often and how long to ask again after 429, 5xx and lost connections.

    Raises:
        ConfigurationError: The address is none.
    """

    def __init__(self, url: str, token: str, patience: Patience | None = None) -> None:
        protocol, host, port, prefix = _parts_of(url)
        self._url = url
        self._patience = patience or Patience()
        self._face = GrafanaFace(
            auth=token,
            host=host,
            port=port,
            url_path_prefix=prefix,
            protocol=protocol,
            timeout=_TIMEOUT_SECONDS,
        )
        # A redirect would turn every POST into a GET without a word.
        self._face.api.s.max_redirects = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._face.api.s.close()

    def health(self) -> str:
        """Ask whether this is a Grafana.

        Returns:
            Its version; empty where it keeps that to itself.

        Raises:
            GrafanaError: It is none, or cannot be reached.
        """
        told = self._ask("for its health", lambda: self._face.api.GET("/health"))
        if not isinstance(told, Mapping) or "database" not in told:
            raise self._no_grafana()
        return str(told.get("version", ""))

    def folder(self, uid: str) -> Mapping[str, Any] | None:
        """Give a folder, or `None` where there is none of that uid."""
        return self._find(f"for the folder {uid!r}", lambda: self._face.folder.get_folder(uid))

    def create_folder(self, uid: str, title: str) -> None:
        """Create a folder at the top; one that appeared meanwhile is as good."""
        try:
            self._ask(
                f"to create the folder {uid!r}",
                lambda: self._face.folder.create_folder(title, uid),
            )
        except GrafanaConflictError:
            if self.folder(uid) is None:
                raise

    def dashboard(self, uid: str) -> SavedDashboard | None:
        """Give a dashboard, or `None` where there is none of that uid."""
        found = self._find(
            f"for the dashboard {uid!r}", lambda: self._face.dashboard.get_dashboard(uid)
        )
        if found is None:
            return None
        meta = found.get("meta", {})
        return SavedDashboard(found.get("dashboard", {}), str(meta.get("folderUid", "")))

    def save_dashboard(
        self, document: Mapping[str, Any], folder: str, before: SavedDashboard | None
    ) -> None:
        """Save a dashboard on top of the version that was read.

        Args:
            document: Its JSON, without `id` and `version`.
            folder: Uid of its folder.
            before: What Grafana had; `None` for nothing.

        Raises:
            GrafanaConflictError: Grafana has another version by now.
            GrafanaError: It was refused.
        """
        own = {"id": None} if before is None else {"version": before.version}
        body = {
            "dashboard": {**document, **own},
            "folderUid": folder,
            "message": _MESSAGE,
            "overwrite": False,
        }
        self._ask(
            f"to save the dashboard {document['uid']!r}",
            lambda: self._face.dashboard.update_dashboard(body),
        )

    def rule_group(self, folder: str, name: str) -> Mapping[str, Any] | None:
        """Give a group of alert rules, or `None` where there is none of that name."""
        path = self._group_path(folder, name)
        return self._find(f"for the rule group {name!r}", lambda: self._face.api.GET(path))

    def save_rule_group(self, folder: str, name: str, body: Mapping[str, Any]) -> None:
        """Replace a whole group of alert rules; twice is the same as once.

        Raises:
            GrafanaConflictError: Somebody else changed it at the same time.
            GrafanaError: It was refused.
        """
        path = self._group_path(folder, name)
        self._ask(
            f"to save the rule group {name!r}",
            lambda: self._face.api.PUT(path, json=body, headers=_EDITABLE),
        )

    def remove_rule_group(self, folder: str, name: str) -> None:
        """Remove a group of alert rules."""
        path = self._group_path(folder, name)
        self._ask(
            f"to remove the rule group {name!r}",
            lambda: self._face.api.DELETE(path, headers=_EDITABLE),
        )

    def receivers(self) -> frozenset[str]:
        """Give the names of all contact points."""
        found = self._ask(
            "for its contact points", lambda: self._face.api.GET("/v1/provisioning/contact-points")
        )
        return frozenset(str(one.get("name", "")) for one in found or ())

    def lacks_datasource(self, uid: str) -> bool:
        """Say whether there is certainly no data source of that uid.

        Only an administrator's token may look; for others Grafana checks it with the rules.
        """
        path = f"/datasources/uid/{quote(uid, safe='')}"
        try:
            found = self._find(f"for the data source {uid!r}", lambda: self._face.api.GET(path))
        except GrafanaError as error:
            if _status(error.__cause__) == _FORBIDDEN:
                return False
            raise
        return found is None

    def _group_path(self, folder: str, name: str) -> str:
        return (
            f"/v1/provisioning/folder/{quote(folder, safe='')}/rule-groups/{quote(name, safe='')}"
        )

    def _find(self, what: str, call: Callable[[], Any]) -> Mapping[str, Any] | None:
        """Ask for something that may not be there."""
        try:
            found = self._ask(what, call)
        except GrafanaError as error:
            if _status(error.__cause__) == _NOT_FOUND:
                return None
            raise
        if not isinstance(found, Mapping):
            raise self._no_grafana()
        return found

    def _ask(self, what: str, call: Callable[[], Any]) -> Any:
        """Send a request, again while Grafana stumbles.

        Returns:
            The answer; `None` where it is empty.
        """
        retrying = Retrying(
            stop=stop_after_attempt(self._patience.attempts),
            wait=wait_exponential(multiplier=self._patience.first_seconds, max=5.0),
            retry=retry_if_exception(_passing),
            before_sleep=lambda state: _log.info(
                "Grafana stumbled when asked %s; attempt %d", what, state.attempt_number
            ),
            reraise=True,
        )
        try:
            return retrying(_empty_is_none, call)
        except (RecursionError, requests.exceptions.JSONDecodeError) as error:
            raise self._no_grafana() from error
        except requests.TooManyRedirects as error:
            raise self._redirected(error) from error
        except requests.RequestException as error:
            raise self._unreachable(error) from error
        except GrafanaException as error:
            raise self._refused(what, error) from error
        except TypeError as error:  # grafana-api takes every body of an error for an object
            raise self._no_grafana() from error

    def _no_grafana(self) -> GrafanaError:
        return GrafanaError(
            f"what answers at {self._url} is no Grafana; correct --url or the key grafana.url "
            "(with the path that Grafana is served below, if any)"
        )

    def _redirected(self, error: requests.TooManyRedirects) -> GrafanaError:
        where = "" if error.response is None else error.response.headers.get("Location", "")
        return GrafanaError(
            f"{self._url} redirects to {where or 'another address'}; give the address that it "
            "ends at with --url or the key grafana.url"
        )

    def _unreachable(self, error: requests.RequestException) -> GrafanaError:
        if isinstance(error, requests.exceptions.SSLError):
            why = "its certificate is not trusted here; name your authority in REQUESTS_CA_BUNDLE"
        elif isinstance(error, requests.Timeout):
            why = f"no answer within {_TIMEOUT_SECONDS:g} seconds; is it up?"
        else:
            why = "no connection; is it up, and is the address right?"
        return GrafanaError(f"Grafana at {self._url} cannot be reached: {why}")

    def _refused(self, what: str, error: GrafanaException) -> GrafanaError:
        status = _status(error)
        said = _said(error)
        if any(word in said.lower() for word in _FROM_FILES):
            return GrafanaError(
                f"Grafana at {self._url} was asked {what} but has it from a provisioning file "
                f"({status}: {said}); change that file, or take it away and push again"
            )
        if status in _CONFLICTS:
            return GrafanaConflictError(
                f"Grafana at {self._url} was asked {what} and says that it was changed meanwhile "
                f"({status}: {said}); look at 'calidrift dashboards diff' and push again"
            )
        advice = {
            401: "the token is unknown or expired; make a new one for a service account and set "
            "CALIDRIFT_GRAFANA_TOKEN or --token-file",
            _FORBIDDEN: "the token may not do that; give its service account the role Editor, or "
            "Admin where that is not enough",
            _NOT_FOUND: "check the address, and that unified alerting is switched on",
            _TOO_MANY: "it is asked too often; try again later",
        }
        if isinstance(error, GrafanaServerError):
            told = f"it failed {self._patience.attempts} times; look at Grafana's own log"
        else:
            told = advice.get(status, "that is a body that it does not take; see its message")
        return GrafanaError(
            f"Grafana at {self._url} was asked {what} and answered {status} ({said}): {told}"
        )


def _parts_of(url: str) -> tuple[str, str, int | None, str]:
    """Split an address as grafana-api wants it: protocol, host, port, and path ending in `/`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # half an IPv6 address, or a port that is none
        parts, port = urlsplit(""), None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(
            f"{url!r} is no address of a Grafana; allowed is http://HOST[:PORT][/PATH]: "
            "correct --url or the key grafana.url"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    prefix = parts.path.strip("/")
    return parts.scheme, host, port, f"{prefix}/" if prefix else ""


def _empty_is_none(call: Callable[[], Any]) -> Any:
    """Call, and take the empty body of a 204 for what it is.

    grafana-api parses every body as JSON, after it has checked the status: an empty one is success.
    """
    try:
        return call()
    except requests.exceptions.JSONDecodeError as error:
        if error.doc == "":
            return None
        raise


def _passing(error: BaseException) -> bool:
    """Say whether the same request may succeed a little later."""
    if isinstance(error, GrafanaClientError):
        return _status(error) == _TOO_MANY
    lost = isinstance(error, requests.ConnectionError | requests.Timeout)
    return (lost and not isinstance(error, requests.exceptions.SSLError)) or isinstance(
        error, GrafanaServerError
    )


def _status(error: BaseException | None) -> int:
    return int(error.status_code) if isinstance(error, GrafanaException) else 0


def _said(error: GrafanaException) -> str:
    """Give Grafana's own message, short and on one line."""
    response = error.response
    text = response.get("message", "") if isinstance(response, Mapping) else response
    told = " ".join(str(text).split())
    return (told[:200] or "no message").rstrip(".")
