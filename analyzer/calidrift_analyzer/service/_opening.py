"""The database for a command: open it, or find out which service holds it."""

import ssl
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Final, final

from calidrift_analyzer.config import AnalyzerConfig
from calidrift_analyzer.errors import StoreBusyError
from calidrift_analyzer.store import COMMAND_PATIENCE, Store

__all__ = ["Held", "open_or_find", "open_store", "own_url"]

_ANY: Final = frozenset({"0.0.0.0", "::", ""})
_PROBE_SECONDS: Final = 2.0
_EXAMPLE: Final = "http://127.0.0.1:PORT"


@final
@dataclass(frozen=True, slots=True)
class Held:
    """Another process holds the database.

    Attributes:
        busy: What to tell where nothing better is known.
        url: Address of the configured service; `None` where its port is not fixed.
        answers: Whether a service answered there.
    """

    busy: StoreBusyError
    url: str | None
    answers: bool

    @property
    def who(self) -> str:
        """Name the database and the process that holds it."""
        return str(self.busy).partition("; one analyzer at a time")[0]


def open_store(config: AnalyzerConfig) -> Store:
    """Open the database for a command that needs it itself.

    Args:
        config: The configuration.

    Raises:
        StoreBusyError: Another process holds it for longer than a command waits; where that is the
            service, the message says where to look instead.
        StoreError: It cannot be used.
    """
    found = open_or_find(config)
    if isinstance(found, Store):
        return found
    if found.answers:
        raise StoreBusyError(
            f"{found.who}; the service on {found.url} holds it: open that page, ask "
            f"{found.url}/api/v1/models/NAME, or order with `calidrift jobs`; do not stop it"
        )
    if found.url is None:
        raise StoreBusyError(
            f"{found.who}; wait until it has finished, or, where that is `calidrift serve` (port = "
            "0: its address is not known here), open the address that it printed at its start, or "
            f"give it to `calidrift jobs --url {_EXAMPLE}`; do not stop it"
        )
    raise found.busy


def open_or_find(config: AnalyzerConfig) -> Store | Held:
    """Open the database, wait a moment for another command, or find who answers for it.

    A service that answers is not waited for: it holds the database for good.

    Raises:
        StoreError: It cannot be used.
    """
    url = own_url(config)
    try:
        return Store.open(config.database)
    except StoreBusyError as error:
        busy = error
    if url is not None and _answers(url):
        return Held(busy, url, answers=True)
    try:
        return Store.open(config.database, patience=COMMAND_PATIENCE)
    except StoreBusyError as error:
        busy = error
    return Held(busy, url, answers=url is not None and _answers(url))


def own_url(config: AnalyzerConfig) -> str | None:
    """Give the address of the configured service; `None` where its port is not fixed."""
    told = config.service
    if not told.port:
        return None
    host = "127.0.0.1" if told.host in _ANY else told.host
    shown = f"[{host}]" if ":" in host else host
    return f"{'http' if told.certificate is None else 'https'}://{shown}:{told.port}"


def _answers(url: str) -> bool:
    """Whether a service is there. Nothing secret is sent, so any certificate will do."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(f"{url}/healthz", timeout=_PROBE_SECONDS) as answer:
            return bool(answer.read(16) == b"ok\n")
    except (OSError, ValueError, HTTPException):
        return False
