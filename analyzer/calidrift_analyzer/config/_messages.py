"""Turns what pydantic says about a bad configuration into sentences for people."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from calidrift_analyzer.config._canary import CanarySettings
from calidrift_analyzer.config._deploy import DeploySettings
from calidrift_analyzer.config._environment import variable_of
from calidrift_analyzer.config._grafana import GrafanaSettings
from calidrift_analyzer.config._service import ServiceSettings
from calidrift_analyzer.config._settings import AnalyzerSettings, ModelSettings

__all__ = ["ENVIRONMENT", "Layer", "explain"]

ENVIRONMENT = "environment"
"""Name of the layer whose keys are variables."""

Layer = tuple[str, Mapping[str, Any]]
"""Where settings came from, in words, and the settings."""

_PASSWORD = re.compile(r"(?<=:)[^/\s]+(?=@)")
"""The secret in `sftp://user:secret@host`; what was given is shown, but never that."""

_TABLES: dict[str, type[BaseModel]] = {
    "analyzer": AnalyzerSettings,
    "service": ServiceSettings,
    "grafana": GrafanaSettings,
    "models": ModelSettings,
}

_MODEL_TABLES: dict[str, type[BaseModel]] = {"canary": CanarySettings, "deploy": DeploySettings}


def explain(error: ValidationError, layers: Sequence[Layer]) -> str:
    """Say in one sentence per problem what was given, what is allowed, and what to do.

    Args:
        error: What validation found.
        layers: The layers that were merged, strongest first; they tell who said the bad value.

    Returns:
        The sentences, joined by `; `.
    """
    return "; ".join(dict.fromkeys(_sentence(detail, layers) for detail in error.errors()))


def _sentence(detail: ErrorDetails, layers: Sequence[Layer]) -> str:
    location = tuple(str(part) for part in detail["loc"] if part != "[key]")
    if location[0] == "models" and "[key]" in detail["loc"]:
        return (
            f"{_where(location, layers)}: {location[1]!r} is no name for a model; allowed are up "
            "to 64 letters, digits, '.', '_' and '-', the first one a letter or digit: rename it"
        )
    if detail["type"] == "extra_forbidden":
        return f"{_where(location, layers)}: {_unknown(location)}"
    if detail["type"] == "missing":
        return (
            f"{_where(location[:-1], layers)}: [{'.'.join(location[:-1])}] has no key "
            f"{location[-1]!r}; add it: {_allowed(location)}"
        )
    return (
        f"{_where(location, layers)}: {'.'.join(location)} is {_shown(detail['input'])}; "
        f"allowed is {_allowed(location)}: correct it"
    )


def _where(location: Sequence[str], layers: Sequence[Layer]) -> str:
    """Name the strongest layer that says something about the place, or its variable."""
    for name, settings in layers:
        spoken = f"the variable {variable_of(location)}" if name == ENVIRONMENT else name
        node: Any = settings
        for part in location:
            if not isinstance(node, Mapping) or part not in node:
                break
            node = node[part]
            if not isinstance(node, Mapping):
                return spoken
        else:
            return spoken
    return layers[-1][0] if layers else "configuration"


def _unknown(location: Sequence[str]) -> str:
    key = location[-1]
    if len(location) == 1:
        if key in AnalyzerSettings.model_fields:
            return f"unknown key {key!r} at the top; it belongs below [analyzer]"
        if key in ServiceSettings.model_fields:
            return f"unknown key {key!r} at the top; it belongs below [service]"
        if key in ModelSettings.model_fields:
            return f"unknown key {key!r} at the top; it belongs below [models.NAME]"
        return f"unknown table [{key}]; {_nearest(key, _TABLES)}"
    table = ".".join(location[:-1])
    valid = _table_of(location).model_fields
    return f"unknown key {key!r} in [{table}]; {_nearest(key, valid)}"


def _nearest(key: str, valid: Iterable[str]) -> str:
    near = get_close_matches(key, list(valid), n=1)
    return f"did you mean {near[0]!r}?" if near else f"allowed are: {', '.join(valid)}"


def _allowed(location: Sequence[str]) -> str:
    """Give the description of the key that a location stands in (`state_dirs.0` is a list)."""
    if len(location) == 1:
        return "a table"
    table = _table_of(location).model_fields
    depth = 1 if location[0] != "models" else 2 if _below_model(location) is None else 3
    key = location[min(depth, len(location) - 1)]
    return table[key].description or "another value" if key in table else "a table"


def _below_model(location: Sequence[str]) -> type[BaseModel] | None:
    """Give the table of a model's own that a location stands in, if any."""
    inside = len(location) > 3 and location[0] == "models"
    return _MODEL_TABLES.get(location[2]) if inside else None


def _table_of(location: Sequence[str]) -> type[BaseModel]:
    return _below_model(location) or _TABLES[location[0]]


def _shown(value: object) -> str:
    text = _PASSWORD.sub("...", repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
