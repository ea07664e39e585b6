"""Bodies that others send: alerts of Alertmanager and Grafana, and orders of people.

Only what is named here is looked at. The one thing that an alert decides is which configured model
is meant, by its label `model`; nothing of it is executed, imported or used as a path.
"""

from datetime import datetime
from typing import Annotated, Final, Literal, final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from calidrift_analyzer.records import JobKind

__all__ = [
    "Alert",
    "AlertmanagerGroup",
    "FreezeOrder",
    "GrafanaGroup",
    "JobOrder",
    "MarkOrder",
    "MuteOrder",
    "Note",
    "RollbackOrder",
    "UnmuteOrder",
]

_MOST_ALERTS: Final = 1_000
Text = Annotated[str, Field(max_length=4_096)]
Name = Annotated[str, Field(max_length=256)]
_LONGEST_SECONDS: Final = 366 * 86_400
_ONE_LINE: Final = "^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=_ONE_LINE)
]
PointName = Annotated[str, Field(min_length=1, max_length=512)]
Remark = Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]


@final
class Alert(BaseModel):
    """One alert of a group."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    status: Literal["firing", "resolved"]
    labels: Annotated[dict[Name, Text], Field(max_length=128)] = {}
    annotations: Annotated[dict[Name, Text], Field(max_length=128)] = {}
    startsAt: datetime | None = None  # noqa: N815 - named by Alertmanager
    fingerprint: Name = ""


Alerts = Annotated[tuple[Alert, ...], Field(max_length=_MOST_ALERTS)]


@final
class AlertmanagerGroup(BaseModel):
    """The body of Alertmanager's webhook, version 4."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: Literal["4"]
    groupKey: Text = ""  # noqa: N815 - named by Alertmanager
    alerts: Alerts


@final
class GrafanaGroup(BaseModel):
    """The body of Grafana's webhook contact point, version 1."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: Literal["1"] = "1"
    groupKey: Text = ""  # noqa: N815 - named by Alertmanager
    alerts: Alerts


@final
class Note(BaseModel):
    """Why something is done, for the audit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    note: Remark = ""


@final
class JobOrder(BaseModel):
    """An order for a job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    note: Remark = ""
    model: Name
    kind: JobKind = JobKind.RECALIBRATION


@final
class RollbackOrder(BaseModel):
    """An order to let an earlier version serve again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    note: Remark = ""
    to: Annotated[str | None, Field(max_length=64)] = None


@final
class FreezeOrder(BaseModel):
    """An order to forbid, or allow again, all changes of a model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    note: Remark = ""
    frozen: bool
    model: Annotated[Name, Field(description="Empty for every model.")] = ""


@final
class MuteOrder(BaseModel):
    """An order not to let alarms decide anything for a while."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Name
    point: Annotated[
        PointName | None,
        Field(description="A name, or a pattern with * and ?; left out for the whole model."),
    ] = None
    seconds: Annotated[float, Field(ge=60, le=_LONGEST_SECONDS, description="How long.")]
    reason: Line


@final
class UnmuteOrder(BaseModel):
    """An order to end mutes before their time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Name
    point: Annotated[PointName | None, Field(description="As it was muted.")] = None
    every: Annotated[bool, Field(description="All mutes of the model.")] = False
    reason: Remark = ""


@final
class MarkOrder(BaseModel):
    """An order to mark a moment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Name
    text: Line
    at: Annotated[
        datetime | None, Field(description="Without an offset: UTC; left out for now.")
    ] = None
