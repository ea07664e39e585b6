"""What a sidecar is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final
from urllib.parse import urlsplit

from calidrift_agent._export import MAX_POINTS
from calidrift_agent._state import SweepOptions
from calidrift_agent.errors import ConfigurationError

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 9464
DEFAULT_INTERVAL_SECONDS: Final = 15.0
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
class SidecarOptions:
    """What a sidecar reads, and what it does with it.

    Attributes:
        directories: State directories; they need not exist yet.
        listen: Where `/metrics` is served.
        push: Where figures are pushed; None: nowhere.
        sweep: Which files of dead processes stay for a while.
        max_points: Points per model that appear one by one, see `ShownPoints`.
    """

    directories: tuple[Path, ...]
    listen: ListenOptions = field(default_factory=ListenOptions)
    push: PushOptions | None = None
    sweep: SweepOptions = field(default_factory=SweepOptions)
    max_points: int = MAX_POINTS

    def __post_init__(self) -> None:
        if not self.directories:
            raise ConfigurationError(
                "no state directory to read; give --state-dir DIR (may be repeated) or set "
                "CALIDRIFT_STATE_DIR to the state_dir of the watches"
            )
        for directory in self.directories:
            if directory.exists() and not directory.is_dir():
                raise ConfigurationError(
                    f"the state directory {directory} is not a folder; give the state_dir of the "
                    "watches"
                )
