"""Compares with Grafana, pushes what differs, and fetches what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, final

from calidrift_analyzer.config import GrafanaConfig
from calidrift_analyzer.dashboards._artefacts import DASHBOARDS, FOLDER_TITLE, dashboard_text
from calidrift_analyzer.dashboards._client import Grafana, SavedDashboard
from calidrift_analyzer.dashboards._difference import differences
from calidrift_analyzer.dashboards._groups import GROUPS, AlertGroup, group_document
from calidrift_analyzer.errors import ConfigurationError, GrafanaConflictError, RefusedError

__all__ = ["Item", "State", "compare", "pull", "push"]

_OF_GRAFANA: Final = ("id", "version", "orgID", "updated", "provenance")
"""What Grafana decides."""


@final
class State(StrEnum):
    """How something of Calidrift stands in Grafana."""

    SAME = "same"
    MISSING = "missing"
    DIFFERENT = "different"


@final
@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is in Grafana or should be.

    Attributes:
        kind: `folder`, `dashboard` or `alerts`.
        name: Its uid, or the name of a rule group.
        state: How it stands.
        differences: What differs, a sentence each.
    """

    kind: str
    name: str
    state: State
    differences: tuple[str, ...] = ()


def compare(grafana: Grafana, config: GrafanaConfig) -> tuple[Item, ...]:
    """Say how everything of Calidrift stands in Grafana.

    Raises:
        GrafanaError: It cannot be asked.
    """
    items = [_folder(grafana, config)]
    items += [_compared_dashboard(grafana, config, one)[0] for one in _documents(config)]
    items += [_compared_group(grafana, config, group) for group in GROUPS]
    return tuple(items)


def push(grafana: Grafana, config: GrafanaConfig) -> tuple[Item, ...]:
    """Bring Grafana to what is wanted; what is right already is not touched.

    Args:
        grafana: Where to.
        config: The folder, the data source and the contact point.

    Returns:
        How everything stood before; what was not `same` has been saved.

    Raises:
        ConfigurationError: Grafana lacks the data source or the contact point; nothing was changed.
        GrafanaError: Grafana cannot be asked, or refuses.
        RefusedError: Somebody changed the same thing at the same moment.
    """
    _check_names(grafana, config)
    items = [_folder(grafana, config)]
    if items[0].state is State.MISSING:
        grafana.create_folder(config.folder, FOLDER_TITLE)
    items += [_push_dashboard(grafana, config, one) for one in _documents(config)]
    items += [_push_group(grafana, config, group) for group in GROUPS]
    return tuple(items)


def pull(grafana: Grafana, config: GrafanaConfig) -> tuple[dict[str, str], tuple[str, ...]]:
    """Fetch what Grafana has of Calidrift's dashboards and alerts.

    Returns:
        The text of each file by its path, and the names of what Grafana lacks.

    Raises:
        GrafanaError: It cannot be asked.
    """
    files: dict[str, str] = {}
    missing = []
    for dashboard in DASHBOARDS:
        saved = grafana.dashboard(dashboard.uid)
        if saved is None:
            missing.append(dashboard.uid)
        else:
            files[f"{dashboard.name}.json"] = dashboard_text(_own(saved.document))
    for group in GROUPS:
        found = grafana.rule_group(config.folder, group.name)
        if found is None:
            missing.append(group.name)
        else:
            rules = [_own(rule) for rule in found.get("rules", ())]
            files[f"{group.name}.json"] = dashboard_text({**found, "rules": rules})
    return files, tuple(missing)


def _documents(config: GrafanaConfig) -> Iterator[dict[str, Any]]:
    return (dashboard.document(config.page_url) for dashboard in DASHBOARDS)


def _own(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in _OF_GRAFANA}


def _check_names(grafana: Grafana, config: GrafanaConfig) -> None:
    if grafana.lacks_datasource(config.datasource):
        raise ConfigurationError(
            f"Grafana has no data source with the uid {config.datasource!r}, which the alerts ask; "
            "set the key grafana.datasource to the uid of your Prometheus (in Grafana: Connections,"
            " Data sources; it ends the address of its page); nothing was changed"
        )
    if config.receiver is not None and config.receiver not in grafana.receivers():
        raise ConfigurationError(
            f"Grafana has no contact point {config.receiver!r}; create it, or correct the key "
            "grafana.receiver; nothing was changed"
        )


def _folder(grafana: Grafana, config: GrafanaConfig) -> Item:
    found = grafana.folder(config.folder)
    return Item("folder", config.folder, State.MISSING if found is None else State.SAME)


def _compared_dashboard(
    grafana: Grafana, config: GrafanaConfig, document: Mapping[str, Any]
) -> tuple[Item, SavedDashboard | None]:
    uid = str(document["uid"])
    saved = grafana.dashboard(uid)
    if saved is None:
        return Item("dashboard", uid, State.MISSING), None
    found = list(differences(document, saved.document))
    if saved.folder != config.folder:
        found.append(f"folder: wanted {config.folder!r}, found {saved.folder!r}")
    return _item("dashboard", uid, found), saved


def _compared_group(grafana: Grafana, config: GrafanaConfig, group: AlertGroup) -> Item:
    found = grafana.rule_group(config.folder, group.name)
    if found is None:
        return Item("alerts", group.name, State.MISSING)
    wanted = group_document(group, config)
    rules = [_own(rule) for rule in wanted["rules"]]
    told = list(differences({**wanted, "rules": rules}, found))
    if config.receiver is None:
        told += [
            f"rules[{rule.get('title')}].notification_settings: only in Grafana"
            for rule in found.get("rules", ())
            if rule.get("notification_settings")
        ]
    return _item("alerts", group.name, told)


def _item(kind: str, name: str, found: list[str]) -> Item:
    return Item(kind, name, State.DIFFERENT if found else State.SAME, tuple(found))


def _push_dashboard(grafana: Grafana, config: GrafanaConfig, document: Mapping[str, Any]) -> Item:
    item, saved = _compared_dashboard(grafana, config, document)
    if item.state is not State.SAME:
        _saved_once(
            lambda: grafana.save_dashboard(document, config.folder, saved),
            lambda: _compared_dashboard(grafana, config, document)[0],
        )
    return item


def _push_group(grafana: Grafana, config: GrafanaConfig, group: AlertGroup) -> Item:
    item = _compared_group(grafana, config, group)
    if item.state is not State.SAME:
        _saved_once(
            lambda: grafana.save_rule_group(
                config.folder, group.name, group_document(group, config)
            ),
            lambda: _compared_group(grafana, config, group),
        )
    return item


def _saved_once(save: Callable[[], None], look: Callable[[], Item]) -> None:
    """Save; a conflict with our own save, whose answer was lost, is none."""
    try:
        save()
    except GrafanaConflictError as error:
        if look().state is not State.SAME:
            raise RefusedError(str(error)) from error
