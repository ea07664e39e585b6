"""The table `[grafana]`: where dashboards and alerts go, and what their links lead to."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, final

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["GrafanaConfig", "GrafanaSettings"]

_UID = r"^[A-Za-z0-9_-]{1,40}$"
_UID_WORDS = "up to 40 letters, digits, '-' and '_'"
_URL = r"^https?://[^\s/@]+(/[^\s?#]*)?$"
_URL_WORDS = "an address that begins with http:// or https://, without a name or password in it"
_PATH = "a path; a relative one in a file starts at that file's folder"


@final
class GrafanaSettings(BaseModel):
    """The table `[grafana]`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    url: Annotated[str | None, Field(pattern=_URL, description=_URL_WORDS)] = None
    token_file: Annotated[str | None, Field(min_length=1, description=_PATH)] = None
    folder: Annotated[str, Field(pattern=_UID, description=_UID_WORDS)] = "calidrift"
    datasource: Annotated[str, Field(pattern=_UID, description=_UID_WORDS)] = "prometheus"
    receiver: Annotated[
        str | None, Field(min_length=1, description="the name of a contact point of Grafana")
    ] = None
    page_url: Annotated[str, Field(pattern=_URL, description=_URL_WORDS)] = "http://127.0.0.1:9465"
    runbook_url: Annotated[
        str, Field(min_length=1, pattern=r"^[^\s#]+$", description="an address without '#'")
    ] = "RUNBOOK.md"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GrafanaConfig:
    """Where dashboards and alerts go, and what their links lead to.

    Attributes:
        url: Base address of Grafana; `None`: none was given.
        token: Token of a service account, from the environment; never shown.
        token_file: File that holds it instead.
        folder: Uid of Grafana's folder of dashboards and alerts.
        datasource: Uid of Grafana's Prometheus data source, for alerts.
        receiver: Contact point of the alerts; `None`: Grafana's default policy decides.
        page_url: Address of the Calidrift page in people's browsers.
        runbook_url: Address of the runbook.
    """

    url: str | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    folder: str = "calidrift"
    datasource: str = "prometheus"
    receiver: str | None = None
    page_url: str = "http://127.0.0.1:9465"
    runbook_url: str = "RUNBOOK.md"
