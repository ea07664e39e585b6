"""Who may do what: tokens with scopes, from a file or the environment."""

import hashlib
import hmac
import logging
import re
import threading
import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, final

from calidrift_analyzer.config import CALIDRIFT_TOKENS
from calidrift_analyzer.errors import ConfigurationError

__all__ = [
    "SIGNATURE_HEADER",
    "TIMESTAMP_HEADER",
    "Caller",
    "Scope",
    "Token",
    "TokenFile",
    "Tokens",
]

SIGNATURE_HEADER: Final = "X-Grafana-Alerting-Signature"
TIMESTAMP_HEADER: Final = "X-Grafana-Alerting-Timestamp"
_SKEW_SECONDS: Final = 300
_LEAST_CHARACTERS: Final = 16
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEYS: Final = frozenset({"secret", "scopes", "expires", "hmac"})
_YOUNG_NS: Final = 100_000_000
"""A file that was written so short ago may be written again without looking different: clocks of
file systems tick every few milliseconds."""
_log = logging.getLogger(__name__)


class Scope(StrEnum):
    """What a token allows."""

    READ = "read"
    TRIGGER = "trigger"
    """Ask for jobs: webhooks and the API."""
    PROMOTE = "promote"
    """Approve, roll back, cancel, freeze and thaw."""
    INGEST = "ingest"
    """Push windows."""


@final
@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the name of a token; where none are configured `local` or `NAME (local)`."""

    name: str
    scopes: frozenset[Scope]


@final
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Token:
    """One token.

    Attributes:
        name: Who holds it; this is what the audit says.
        secret: What is sent, or what signs.
        scopes: What it allows.
        expires_ns: When it stops to count, UTC nanoseconds; `None` for never.
        signs: Whether it signs bodies (HMAC) and is never sent.
    """

    name: str
    secret: bytes
    scopes: frozenset[Scope]
    expires_ns: int | None = None
    signs: bool = False

    @property
    def expired(self) -> bool:
        """Whether it no longer counts."""
        return self.expires_ns is not None and time.time_ns() >= self.expires_ns


@final
class Tokens:
    """All tokens of the service.

    Comparing takes the same time wherever the first difference is, and looks at every token.
    """

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._tokens = tuple(tokens)
        names = [token.name for token in self._tokens]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigurationError(
                f"the token {twice[0]!r} is given twice; give each holder a name of its own"
            )

    def __len__(self) -> int:
        return len(self._tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokens) and self._tokens == other._tokens

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def load(cls, path: Path | None, variable: str) -> "Tokens":
        """Read the tokens of a file and of the environment.

        Args:
            path: The file; `None` where there is none.
            variable: What `CALIDRIFT_TOKENS` says; empty where it is not set.

        Raises:
            ConfigurationError: The file cannot be read, may be read by others, or says something
                that is no token.
        """
        return cls([*([] if path is None else _file(path)), *_variable(variable)])

    def secret_for(self, scope: Scope) -> str | None:
        """Give a secret that allows something, for whoever may read the tokens file anyway."""
        for token in self._tokens:
            if scope in token.scopes and not token.signs and not token.expired:
                return token.secret.decode()
        return None

    def bearer(self, sent: str) -> Caller | None:
        """Find who holds a secret; `None` where nobody does, or it has expired."""
        given = hashlib.sha256(sent.encode("utf-8", "surrogatepass")).digest()
        found: Token | None = None
        for token in self._tokens:
            same = hmac.compare_digest(given, hashlib.sha256(token.secret).digest())
            if same and not token.signs:
                found = token
        return None if found is None or found.expired else Caller(found.name, found.scopes)

    def signable(self, headers: Mapping[str, str]) -> bool:
        """Whether a body with such headers may be signed, so that it is worth reading."""
        sent, moment = headers.get(SIGNATURE_HEADER), headers.get(TIMESTAMP_HEADER)
        if sent is None or moment is None or not re.fullmatch(r"[0-9]{1,12}", moment):
            return False
        if abs(time.time() - int(moment)) > _SKEW_SECONDS:
            return False
        known = any(token.signs and not token.expired for token in self._tokens)
        return known and re.fullmatch(r"\s*[0-9A-Fa-f]{64}\s*", sent) is not None

    def signed(self, headers: Mapping[str, str], body: bytes) -> Caller | None:
        """Find who signed a body: HMAC-SHA256 over `timestamp:body`, in hex.

        `None` where nobody did, the token has expired, or the timestamp is more than five minutes
        off: a recorded request cannot be sent again later.
        """
        if not self.signable(headers):
            return None
        moment = headers[TIMESTAMP_HEADER]
        given = headers[SIGNATURE_HEADER].strip().lower().encode("utf-8", "surrogatepass")
        found: Token | None = None
        for token in self._tokens:
            mac = hmac.new(token.secret, moment.encode() + b":" + body, hashlib.sha256)
            if hmac.compare_digest(given, mac.hexdigest().encode()) and token.signs:
                found = token
        return None if found is None or found.expired else Caller(found.name, found.scopes)


@final
class TokenFile:
    """The tokens as their file has them now: read again when it has changed.

    A file that is gone allows nothing any more. One that is there, but cannot be used (half
    written, or open to others) changes nothing until it is put right: what it said last stays in
    force, and the log says so once. Once there was a token, this never becomes a service without
    any, which would let in everybody on this machine.

    Args:
        path: The file; `None` where there is none.
        variable: What `CALIDRIFT_TOKENS` says; empty where it is not set.

    Raises:
        ConfigurationError: As `Tokens.load`.
    """

    def __init__(self, path: Path | None, variable: str) -> None:
        self._path = path
        self._variable = variable
        self._lock = threading.Lock()
        self._seen = _signature(path)
        self._tokens = Tokens.load(path, variable)
        self._guarded = len(self._tokens) > 0
        self._complaint = ""

    @property
    def guarded(self) -> bool:
        """Whether a token is needed: there is one, or there was one since the start."""
        return self._guarded

    def current(self) -> Tokens:
        """Give the tokens of now; 2 us while the file is as it was."""
        now = _signature(self._path)
        if now != self._seen:
            with self._lock:
                if now != self._seen:
                    self._read_again(now)
        return self._tokens

    def _read_again(self, now: tuple[int, ...] | None) -> None:
        # Taken down before reading: whatever is written meanwhile is another change.
        self._seen = now
        try:
            found = Tokens.load(self._path if now else None, self._variable)
        except ConfigurationError as error:
            self._complain(f"{error}; the tokens from before stay in force")
            return
        if found != self._tokens:
            count = len(found)
            _log.warning("the tokens file %s was read again: %d tokens", self._path, count)
        self._tokens, self._guarded = found, self._guarded or len(found) > 0
        self._complain("" if now else f"the tokens file {self._path} is gone; it allows nothing")

    def _complain(self, sentence: str) -> None:
        """Tell what is wrong now, once."""
        if sentence and sentence != self._complaint:
            _log.error("%s", sentence)
        self._complaint = sentence


def _signature(path: Path | None) -> tuple[int, ...] | None:
    """What changes with a file; `None` where there is none, or nobody may look."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    young = time.time_ns() - found.st_mtime_ns < _YOUNG_NS
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return found.st_dev, found.st_ino, *times, found.st_size, int(young)


def _file(path: Path) -> list[Token]:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"the tokens file {path} cannot be read ({reason}); correct the key tokens in [service]"
        ) from error
    if mode & 0o077:
        raise ConfigurationError(
            f"the tokens file {path} may be read by others (mode {mode & 0o777:04o}); allow it to "
            f"its owner alone: chmod 600 {path}"
        )
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f"the tokens file {path} is not valid TOML ({error}); write one table [NAME] with "
            "secret and scopes for each token"
        ) from error
    return [_token(name, table, f"{path}: ") for name, table in content.items()]


def _token(name: str, table: object, where: str) -> Token:
    if not isinstance(table, dict) or not set(table) <= _KEYS:
        raise ConfigurationError(
            f"{where}{name!r} must be a table [{name}] with the keys secret, scopes and, where "
            "needed, expires and hmac"
        )
    return _checked(where, name, table)


def _variable(text: str) -> list[Token]:
    found = []
    for word in text.replace(",", " ").split():
        name, _, rest = word.partition(":")
        scopes, _, secret = rest.partition(":")
        table = {"scopes": scopes.split("+"), "secret": secret}
        found.append(_checked(f"{CALIDRIFT_TOKENS}: ", name, table))
    return found


def _checked(where: str, name: str, table: Mapping[str, Any]) -> Token:
    """Check one token; a message never shows a secret."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{where}a token has a name that cannot be used; write NAME:SCOPE+SCOPE:SECRET, with a "
            "name of letters, digits, '.', '_' and '-'"
        )
    secret, scopes = table.get("secret"), table.get("scopes")
    if not isinstance(secret, str) or len(secret) < _LEAST_CHARACTERS or not secret.isprintable():
        raise ConfigurationError(
            f"{where}the secret of {name!r} must be at least {_LEAST_CHARACTERS} characters long; "
            "make one: `openssl rand -hex 32`"
        )
    known = {scope.value for scope in Scope}
    if not isinstance(scopes, list) or not scopes or not all(one in known for one in scopes):
        raise ConfigurationError(
            f"{where}the scopes of {name!r} must be some of {', '.join(Scope)}"
        )
    signs = table.get("hmac", False)
    if not isinstance(signs, bool):
        raise ConfigurationError(f"{where}hmac of {name!r} must be true or false")
    return Token(
        name=name,
        secret=secret.encode(),
        scopes=frozenset(Scope(one) for one in scopes),
        expires_ns=_moment(where, name, table.get("expires")),
        signs=signs,
    )


def _moment(where: str, name: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        raise ConfigurationError(
            f"{where}expires of {name!r} must be a date or a moment like 2027-01-31T00:00:00Z"
        )
    moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1e9)
