"""The one module of the analyzer that reads environment variables.

Every key of the file has a variable, and it wins over the file:

| key of the file | variable |
|---|---|
| `analyzer.database` | `CALIDRIFT_DATABASE` |
| `analyzer.state_dirs` | `CALIDRIFT_STATE_DIRS`, several separated by `:` |
| `analyzer.keep_windows_hours` (and every other) | `CALIDRIFT_KEEP_WINDOWS_HOURS` |
| `service.port` (and every other) | `CALIDRIFT_SERVICE__PORT` |
| `grafana.url` (and every other) | `CALIDRIFT_GRAFANA__URL` |
| `models.NAME.alpha` (and every other) | `CALIDRIFT_MODELS__NAME__ALPHA` |
| `models.NAME.deploy.url` (and every other) | `CALIDRIFT_MODELS__NAME__DEPLOY__URL` |
| `models.NAME.canary.units` (and `hours`) | `CALIDRIFT_MODELS__NAME__CANARY__UNITS` |
| `models.NAME.deploy.command` | `CALIDRIFT_MODELS__NAME__DEPLOY__COMMAND`, a JSON list |
| the path of the file itself | `CALIDRIFT_CONFIG` |

NAME is written in capitals with `_` for every character that a variable cannot have
(`digits-v2` is `DIGITS_V2`); a name that the file does not declare becomes a new model in lower
case, so that a container needs no file at all.

An unknown variable is *not* refused: Kubernetes puts `CALIDRIFT_PORT` and others into every pod
beside a service called `calidrift`. One that looks like a misspelt key is logged.
"""

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from calidrift_analyzer.config._canary import CanarySettings
from calidrift_analyzer.config._deploy import DeploySettings
from calidrift_analyzer.config._grafana import GrafanaSettings
from calidrift_analyzer.config._service import ServiceSettings
from calidrift_analyzer.config._settings import AnalyzerSettings, ModelSettings
from calidrift_analyzer.errors import ConfigurationError

__all__ = [
    "CALIDRIFT_CONFIG",
    "CALIDRIFT_GRAFANA_TOKEN",
    "CALIDRIFT_TOKENS",
    "config_path",
    "grafana_token",
    "layer",
    "process_variables",
    "service_tokens",
    "variable_of",
]

CALIDRIFT_CONFIG = "CALIDRIFT_CONFIG"
"""Path of the configuration file where `--config` is not given."""

CALIDRIFT_TOKENS = "CALIDRIFT_TOKENS"
"""Tokens of the service: `NAME:SCOPE+SCOPE:SECRET`, several separated by commas or spaces."""

CALIDRIFT_GRAFANA_TOKEN = "CALIDRIFT_GRAFANA_TOKEN"
"""Token of a service account of Grafana, for `calidrift dashboards`."""

_PREFIX = "CALIDRIFT_"
_SERVICE = "CALIDRIFT_SERVICE__"  # two: Kubernetes sets CALIDRIFT_SERVICE_PORT beside a service
_GRAFANA = "CALIDRIFT_GRAFANA__"
_MODELS = "CALIDRIFT_MODELS__"
_TABLES: dict[str, type[BaseModel]] = {"canary": CanarySettings, "deploy": DeploySettings}
"""The tables of their own that a model may have."""
_NOT_IN_A_NAME = re.compile(r"[^A-Z0-9]")

_log = logging.getLogger(__name__)


def process_variables() -> Mapping[str, str]:
    """Give the variables of this process."""
    return os.environ


def config_path(variables: Mapping[str, str]) -> str | None:
    """Give the path of the configuration file that the environment names, if any."""
    return variables.get(CALIDRIFT_CONFIG, "").strip() or None


def service_tokens(variables: Mapping[str, str] | None = None) -> str:
    """Give what the environment says about tokens of the service; empty where it says nothing."""
    return (process_variables() if variables is None else variables).get(CALIDRIFT_TOKENS, "")


def grafana_token(variables: Mapping[str, str]) -> str | None:
    """Give the token of Grafana that the environment holds, if any."""
    return variables.get(CALIDRIFT_GRAFANA_TOKEN, "").strip() or None


def variable_of(location: Sequence[str]) -> str:
    """Name the variable of a key of the file.

    >>> variable_of(("analyzer", "database"))
    'CALIDRIFT_DATABASE'
    >>> variable_of(("models", "digits-v2", "alpha"))
    'CALIDRIFT_MODELS__DIGITS_V2__ALPHA'
    """
    if location[0] == "service":
        return _SERVICE + "__".join(_in_capitals(part) for part in location[1:])
    if location[0] == "grafana":
        return _GRAFANA + "__".join(_in_capitals(part) for part in location[1:])
    if location[0] == "models":
        return _MODELS + "__".join(_in_capitals(part) for part in location[1:])
    return _PREFIX + _in_capitals(location[-1])


def layer(variables: Mapping[str, str], declared: Iterable[str]) -> dict[str, Any]:
    """Turn the variables into a layer of settings in the shape of the file.

    Args:
        variables: The environment.
        declared: Names of the models that the file declares.

    Returns:
        A nested mapping with typed values.

    Raises:
        ConfigurationError: A variable of a model names no key, or a value has the wrong type.
    """
    analyzer = {
        key: _typed(variable, variables[variable], AnalyzerSettings, key)
        for key in AnalyzerSettings.model_fields
        if (variable := variable_of(("analyzer", key))) in variables
    }
    service = {
        key: _typed(variable, variables[variable], ServiceSettings, key)
        for key in ServiceSettings.model_fields
        if (variable := variable_of(("service", key))) in variables
    }
    grafana = {
        key: _typed(variable, variables[variable], GrafanaSettings, key)
        for key in GrafanaSettings.model_fields
        if (variable := variable_of(("grafana", key))) in variables
    }
    names = {_in_capitals(name): name for name in declared}
    models: dict[str, dict[str, Any]] = {}
    for variable in sorted(variables):
        if variable.startswith(_MODELS):
            name, part, key = _model_key(variable)
            values = models.setdefault(names.get(name, name.lower()), {})
            if part:
                values = values.setdefault(part, {})
            table = _TABLES.get(part, ModelSettings)
            values[key] = _typed(variable, variables[variable], table, key)
    _warn_of_misspelt(variables)
    found: dict[str, Any] = {"analyzer": analyzer, "service": service, "models": models}
    found["grafana"] = grafana
    return {table: content for table, content in found.items() if content}


def _in_capitals(name: str) -> str:
    return _NOT_IN_A_NAME.sub("_", name.upper())


def _model_key(variable: str) -> tuple[str, str, str]:
    """Split the variable of a model into its name (in capitals), a table in it, and a key."""
    name, _, word = variable.removeprefix(_MODELS).rpartition("__")
    key = word.lower()
    for part, table in _TABLES.items():
        if name.endswith(f"__{part.upper()}") and key in table.model_fields:
            return name.removesuffix(f"__{part.upper()}"), part, key
    if name and key in ModelSettings.model_fields and key not in _TABLES:
        return name, "", key
    near = get_close_matches(key, ModelSettings.model_fields, n=1)
    hint = (
        f"did you mean {_MODELS}{name or 'NAME'}__{near[0].upper()}?"
        if near
        else f"a variable of a model has the form {_MODELS}NAME__KEY, with KEY one of: "
        + ", ".join(key.upper() for key in ModelSettings.model_fields)
    )
    raise ConfigurationError(f"the variable {variable} names no key; {hint}")


def _typed(variable: str, text: str, table: type[BaseModel], key: str) -> Any:
    """Parse and check the text of a variable as the type of its key."""
    field = table.model_fields[key]
    if key == "command":  # one text per argument: no separator could tell them apart
        return _listed(variable, text, table, key)
    if get_origin(field.annotation) is list:
        return [part for part in text.split(os.pathsep) if part]
    try:
        return TypeAdapter[Any](table.__annotations__[key]).validate_strings(text)
    except ValidationError as error:
        raise ConfigurationError(
            f"the variable {variable} is {text!r}; allowed is {field.description}: "
            "correct or unset it"
        ) from error


def _listed(variable: str, text: str, table: type[BaseModel], key: str) -> Any:
    try:
        return TypeAdapter(list[str]).validate_json(text)
    except ValidationError as error:
        raise ConfigurationError(
            f"the variable {variable} is {text!r}; allowed is {table.model_fields[key].description}"
            ", written as a JSON list of texts: correct or unset it"
        ) from error


def _warn_of_misspelt(variables: Mapping[str, str]) -> None:
    known = [variable_of(("analyzer", key)) for key in AnalyzerSettings.model_fields]
    known += [variable_of(("service", key)) for key in ServiceSettings.model_fields]
    known += [variable_of(("grafana", key)) for key in GrafanaSettings.model_fields]
    # The agent's variables share the prefix and are close to ours: never call them misspelt.
    allowed = {
        *known,
        *(CALIDRIFT_CONFIG, CALIDRIFT_TOKENS, "CALIDRIFT_STATE_DIR", "CALIDRIFT_DISABLED"),
        CALIDRIFT_GRAFANA_TOKEN,
    }
    for variable in variables:
        if variable.startswith("CALIDRIFT_SERVICE_") and not variable.startswith(_SERVICE):
            continue  # of Kubernetes
        if variable.startswith(_PREFIX) and variable not in allowed:
            near = get_close_matches(variable, known, n=1, cutoff=0.85)
            if near:
                _log.warning("the variable %s is not read; did you mean %s?", variable, near[0])
