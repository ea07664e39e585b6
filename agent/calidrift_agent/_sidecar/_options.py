"""What a sidecar is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final
from urllib.parse import urlsplit

from calidrift_agent._export import MAX_POINTS
from calidrift_agent._sidecar._folders import require_possible
from calidrift_agent._state import SweepOptions
from calidrift_agent.errors import ConfigurationError

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 9464
DEFAULT_INTERVAL_SECONDS: Final = 15.0
DEFAULT_SPOOL_BYTES: Final = 64 * 1024 * 1024
_SIGNAL_PATH: Final = "/v1/metrics"
_DAY_SECONDS: Final = 86_400.0


@final
@dataclass(frozen=True, slots=True)
class ListenOptions:
    """Where `/metrics` is served, and to whom.

    Attributes:
        host: Address to listen on. Only this machine (in a pod: only this pod) reaches the
            default; figures say what a model is used for, so give a token with any other.
        port: Port to listen on; 0: any that is free.
        token_file: File whose content readers must send as bearer token; read again when it
            changes. None: no token is asked for.
        certificate: Certificate chain (PEM); None: plain HTTP.
        key: Its private key (PEM); None together with `certificate`.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    token_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ConfigurationError(
                f"the port must be 0 (any that is free) to 65535, got {self.port}"
            )
        if (self.certificate is None) != (self.key is None):
            missing = "--tls-key" if self.key is None else "--tls-cert"
            raise ConfigurationError(
                f"TLS needs a certificate and its key, but {missing} is missing; give both, or "
                "neither for plain HTTP"
            )


@final
@dataclass(frozen=True, slots=True)
class PushOptions:
    """Where figures are pushed over OTLP, and how often.

    Attributes:
        url: Address of an OTLP/HTTP receiver; without a path, `/v1/metrics` is added.
        interval_seconds: Time between two pushes, give or take a tenth.
    """

    url: str
    interval_seconds: float = DEFAULT_INTERVAL_SECONDS

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname)
            usable = usable and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ConfigurationError(
                f"the OTLP address must be http://HOST:PORT or https://HOST:PORT, got {self.url!r}"
            )
        if not 0.1 <= self.interval_seconds <= _DAY_SECONDS:
            raise ConfigurationError(
                f"the interval must be 0.1 to 86400 seconds, got {self.interval_seconds!r}"
            )

    @property
    def endpoint(self) -> str:
        """The address with its path.

        Example:
            >>> PushOptions("http://collector:4318").endpoint
            'http://collector:4318/v1/metrics'
        """
        parts = urlsplit(self.url)
        if parts.path in ("", "/"):
            return parts._replace(path=_SIGNAL_PATH).geturl()
        return self.url


@final
@dataclass(frozen=True, slots=True)
class ShipOptions:
    """Where windows are pushed: an analyzer that does not see the state directories.

    Attributes:
        url: Address of the analyzer, `http://HOST:PORT` or `https://HOST:PORT`, with the path
            that a proxy may have put before it.
        token_file: File whose content is sent as bearer token; read anew for each push. None: no
            token is sent.
        ca_file: Certificates (PEM) that the analyzer's must lead to; None: those of the system.
        interval_seconds: Time between two looks for new windows, give or take a tenth.
        spool: Folder for what is not pushed yet and for the ledger of what is; None: `.push` in
            the first state directory.
        spool_bytes: Most bytes of windows in the spool.
        timeout_seconds: How long one request may take.
        captures: Whether captures that the analyzer asks for may leave; else only their names do.
    """

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None
    interval_seconds: float = DEFAULT_INTERVAL_SECONDS
    spool: Path | None = None
    spool_bytes: int = DEFAULT_SPOOL_BYTES
    timeout_seconds: float = 10.0
    captures: bool = False

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname)
            usable = usable and parts.port != 0 and not (parts.query or parts.fragment)
            usable = usable and parts.username is None
        except ValueError:
            usable = False
        if not usable:
            shown = self.url if "@" not in self.url else "an address with a user in it"
            raise ConfigurationError(
                "the address to push to must be http://HOST:PORT or https://HOST:PORT, got "
                f"{shown!r}; secrets go into --push-token-file"
            )
        if not 0.1 <= self.interval_seconds <= _DAY_SECONDS:
            raise ConfigurationError(
                f"the interval must be 0.1 to 86400 seconds, got {self.interval_seconds!r}"
            )
        if not 0.1 <= self.timeout_seconds <= 300.0:
            raise ConfigurationError(
                f"the timeout must be 0.1 to 300 seconds, got {self.timeout_seconds!r}"
            )
        if type(self.spool_bytes) is not int or self.spool_bytes < 0:
            raise ConfigurationError(
                f"the bytes of the spool must be a whole number of at least 0, got "
                f"{self.spool_bytes!r}"
            )
        if self.ca_file is not None and not self.url.startswith("https:"):
            raise ConfigurationError("--push-ca is for https://; this address is not encrypted")


@final
@dataclass(frozen=True, slots=True)
class SidecarOptions:
    """What a sidecar reads, and what it does with it.

    Attributes:
        directories: State directories; they need not exist yet.
        listen: Where `/metrics` is served.
        push: Where figures are pushed; None: nowhere.
        ship: Where windows are pushed; None: nowhere.
        sweep: Which files of dead processes stay for a while.
        max_points: Points per model that appear one by one, see `ShownPoints`.
    """

    directories: tuple[Path, ...]
    listen: ListenOptions = field(default_factory=ListenOptions)
    push: PushOptions | None = None
    ship: ShipOptions | None = None
    sweep: SweepOptions = field(default_factory=SweepOptions)
    max_points: int = MAX_POINTS

    def __post_init__(self) -> None:
        if not self.directories:
            raise ConfigurationError(
                "no state directory to read; give --state-dir DIR (may be repeated) or set "
                "CALIDRIFT_STATE_DIR to the state_dir of the watches"
            )
        for directory in self.directories:
            require_possible(directory)
