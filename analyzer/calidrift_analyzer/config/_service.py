"""The table `[service]`: where `calidrift serve` listens, what it does alone, its limits."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, final

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["LOOPBACK", "Mode", "ServiceConfig", "ServiceSettings"]

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
"""Addresses that only this machine reaches."""

_SPAN = "a number of seconds above 0"
_SPAN_OR_OFF = "a number of seconds above 0, or 0 for never"
_PATH = "a path; a relative one in a file starts at that file's folder"
_WORDS = "one of 'propose', 'auto' and 'off'"


class Mode(StrEnum):
    """What the service does with a model that drifted."""

    PROPOSE = "propose"
    """Recalibrates and validates, then waits for a person."""
    AUTO = "auto"
    """Promotes what passes every gate."""
    OFF = "off"
    """Never recalibrates."""


@final
class ServiceSettings(BaseModel):
    """The table `[service]`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    host: Annotated[str, Field(min_length=1, description="an address to listen on")] = "127.0.0.1"
    port: Annotated[
        int, Field(ge=0, le=65_535, description="a port from 0 (any that is free) to 65535")
    ] = 9465
    tokens: Annotated[str | None, Field(min_length=1, description=_PATH)] = None
    certificate: Annotated[str | None, Field(min_length=1, description=_PATH)] = None
    key: Annotated[str | None, Field(min_length=1, description=_PATH)] = None
    mode: Annotated[str, Field(description=_WORDS)] = "propose"
    own_alarms: Annotated[bool, Field(description="true or false")] = True
    ingest_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False, description=_SPAN)] = 15.0
    assess_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False, description=_SPAN)] = 60.0
    retention_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False, description=_SPAN)] = (
        3_600.0
    )
    revalidate_seconds: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description=_SPAN_OR_OFF)
    ] = 604_800.0
    publish_seconds: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description=_SPAN_OR_OFF)
    ] = 60.0
    cool_down_seconds: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="a number of seconds from 0")
    ] = 21_600.0
    daily_cap: Annotated[int, Field(ge=0, description="a whole number from 0")] = 4
    max_body_bytes: Annotated[
        int, Field(ge=1_024, le=2**30, description="a number of bytes from 1024 to 2^30")
    ] = 8 * 2**20
    requests_per_minute: Annotated[int, Field(ge=1, description="a whole number from 1")] = 6_000

    @field_validator("mode")
    @classmethod
    def _mode(cls, value: str) -> str:
        return Mode(value).value


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """What `calidrift serve` is told.

    Attributes:
        host: Address to listen on; any but a loopback address needs tokens.
        port: Port; 0 for any that is free.
        tokens: File of tokens and their scopes; `None` for the environment alone.
        certificate: Certificate chain (PEM); `None` for plain HTTP.
        key: Its private key (PEM).
        mode: What happens to a model that drifted.
        own_alarms: Whether the service's own alarms order recalibrations; False leaves that to
            alerts of Alertmanager and Grafana, whose silences then hold, and to people.
        ingest_seconds: Time between two looks into the state directories.
        assess_seconds: Time between two assessments.
        retention_seconds: Time between two runs of the retention.
        revalidate_seconds: Time between two re-validations of what serves; 0 for never.
        publish_seconds: Time between two looks whether what serves is at its `registry_url`; 0 for
            never.
        cool_down_seconds: Least time between the end of one recalibration of a model and the next
            one that is not asked for by a person.
        daily_cap: Most recalibrations of one model within 24 hours; 0 for none at all.
        max_body_bytes: Most bytes of one request.
        requests_per_minute: Most requests of one caller within a minute.
    """

    host: str = "127.0.0.1"
    port: int = 9465
    tokens: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    mode: Mode = Mode.PROPOSE
    own_alarms: bool = True
    ingest_seconds: float = 15.0
    assess_seconds: float = 60.0
    retention_seconds: float = 3_600.0
    revalidate_seconds: float = 604_800.0
    publish_seconds: float = 60.0
    cool_down_seconds: float = 21_600.0
    daily_cap: int = 4
    max_body_bytes: int = 8 * 2**20
    requests_per_minute: int = 6_000
