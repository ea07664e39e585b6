"""Finds, reads and merges the configuration."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from calidrift_agent import _environment as agent_environment
from calidrift_analyzer.config import _environment
from calidrift_analyzer.config._canary import CanaryConfig
from calidrift_analyzer.config._deploy import DeployConfig, DeploySettings
from calidrift_analyzer.config._grafana import GrafanaConfig, GrafanaSettings
from calidrift_analyzer.config._messages import ENVIRONMENT, Layer, explain
from calidrift_analyzer.config._retention import RETENTION_KEYS, RetentionConfig
from calidrift_analyzer.config._service import Mode, ServiceConfig, ServiceSettings
from calidrift_analyzer.config._settings import ModelSettings, combine
from calidrift_analyzer.config._values import AnalyzerConfig, ModelContract
from calidrift_analyzer.errors import ConfigurationError

__all__ = ["CONFIG_NAME", "load_config"]

CONFIG_NAME = "calidrift.toml"
"""Name of the file that is looked for in the current folder."""


_SERVICE_PATHS = ("tokens", "certificate", "key")


def load_config(
    path: Path | str | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    variables: Mapping[str, str] | None = None,
) -> AnalyzerConfig:
    """Load the configuration; precedence is flag, environment, file, default.

    The file is `path`, else what `CALIDRIFT_CONFIG` names, else `calidrift.toml` in the current
    folder if there is one, else none. Relative paths inside a file and in defaults start at the
    file's folder; those in flags and variables start at the current folder.

    Args:
        path: The file to read; it must exist.
        flags: Values from the command line by dotted key (`models.digits.alpha`); `None` values
            are flags that were not given.
        variables: The environment; that of this process where not given.

    Returns:
        The configuration with absolute paths.

    Raises:
        ConfigurationError: The file is missing, unreadable or not TOML, or a key or value is not
            allowed; the message names the file, variable or flag, and the nearest valid key.
    """
    variables = _environment.process_variables() if variables is None else variables
    source = _find(path, variables)
    content = {} if source is None else _read(source)
    root = Path.cwd() if source is None else source.parent
    declared = content.get("models")
    layers: list[Layer] = [
        ("command line", _absolute(_nested(flags or {}), Path.cwd())),
        (
            ENVIRONMENT,
            _absolute(
                _environment.layer(variables, declared if isinstance(declared, dict) else ()),
                Path.cwd(),
            ),
        ),
        (str(source) if source else "configuration", content),
    ]
    try:
        settings = combine(*(values for _, values in layers))
    except ValidationError as error:
        raise ConfigurationError(explain(error, layers)) from error
    state_dirs = [_below(root, folder) for folder in settings.analyzer.state_dirs]
    if not state_dirs:
        # What this shell tells the agent is the best guess at where the agent writes.
        folder = agent_environment.read(variables).state_dir
        state_dirs = [] if folder is None else [_below(Path.cwd(), str(folder))]
    return AnalyzerConfig(
        database=_below(root, settings.analyzer.database),
        state_dirs=tuple(state_dirs),
        models=MappingProxyType(
            {name: _contract(name, root, table) for name, table in settings.models.items()}
        ),
        source=source,
        service=_service(root, settings.service),
        retention=RetentionConfig(
            **{key: getattr(settings.analyzer, key) for key in RETENTION_KEYS}
        ),
        grafana=_grafana(root, settings.grafana, _environment.grafana_token(variables)),
    )


def _find(path: Path | str | None, variables: Mapping[str, str]) -> Path | None:
    named = path or _environment.config_path(variables)
    if named is None:
        found = Path.cwd() / CONFIG_NAME
        return found if found.exists() else None
    found = Path(named).expanduser().absolute()
    if not found.exists():
        said = "--config" if path else _environment.CALIDRIFT_CONFIG
        raise ConfigurationError(
            f"there is no configuration file {found}; create it, or correct {said}"
        )
    return found


def _read(source: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        # The text of the error ends in "(at line 3, column 5)".
        raise ConfigurationError(
            f"{source} is not valid TOML: {error}; correct it there"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{source} is not UTF-8 text ({error}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"{source} cannot be read: {error.strerror}; allowed is a readable file"
        ) from error


def _nested(flags: Mapping[str, object]) -> dict[str, Any]:
    """Turn dotted keys into nested tables, without the flags that were not given.

    The name of a model may itself have dots, so only the first and the last one split.
    """
    nested: dict[str, Any] = {}
    for dotted, value in flags.items():
        if value is None:
            continue
        table, _, rest = dotted.partition(".")
        name, _, key = rest.rpartition(".")
        target = nested.setdefault(table, {})
        if name:
            target = target.setdefault(name, {})
        target[key] = value
    return nested


def _absolute(layer: dict[str, Any], root: Path) -> dict[str, Any]:
    """Fix the paths of a layer that does not come from the file."""
    analyzer = layer.get("analyzer", {})
    if isinstance(analyzer.get("database"), str | Path):
        analyzer["database"] = str(_below(root, str(analyzer["database"])))
    if "state_dirs" in analyzer:
        analyzer["state_dirs"] = [str(_below(root, str(one))) for one in analyzer["state_dirs"]]
    service = layer.get("service", {})
    for key in _SERVICE_PATHS:
        if service.get(key):
            service[key] = str(_below(root, str(service[key])))
    grafana = layer.get("grafana", {})
    if isinstance(grafana.get("token_file"), str | Path):
        grafana["token_file"] = str(_below(root, str(grafana["token_file"])))
    for table in layer.get("models", {}).values():
        for key in ("registry", "weights"):
            if table.get(key):
                table[key] = str(_below(root, str(table[key])))
        deploy = table.get("deploy", {})
        if deploy.get("secret_file"):
            deploy["secret_file"] = str(_below(root, str(deploy["secret_file"])))
    return layer


def _below(root: Path, path: str) -> Path:
    return (root / Path(path).expanduser()).absolute()


def _service(root: Path, table: ServiceSettings) -> ServiceConfig:
    values = table.model_dump()
    for key in _SERVICE_PATHS:
        values[key] = None if values[key] is None else _below(root, values[key])
    return ServiceConfig(**{**values, "mode": Mode(values["mode"])})


def _grafana(root: Path, table: GrafanaSettings, token: str | None) -> GrafanaConfig:
    values = table.model_dump()
    path = values.pop("token_file")
    token_file = None if path is None else _below(root, path)
    return GrafanaConfig(token=token, token_file=token_file, **values)


def _deploy(root: Path, table: DeploySettings | None) -> DeployConfig | None:
    if table is None:
        return None
    secret_file = None if table.secret_file is None else _below(root, table.secret_file)
    return DeployConfig(
        command=tuple(table.command or ()),
        url=table.url,
        secret_file=secret_file,
        timeout_seconds=table.timeout_seconds,
        give_up_seconds=table.give_up_seconds,
    )


def _contract(name: str, root: Path, table: ModelSettings) -> ModelContract:
    values = table.model_dump()
    weights = values.pop("weights")
    values["deploy"] = _deploy(root, table.deploy)
    values["canary"] = None if table.canary is None else CanaryConfig(**values["canary"])
    return ModelContract(
        name=name,
        root=root,
        registry=_below(root, values.pop("registry")),
        weights=None if weights is None else _below(root, weights),
        **values,
    )
