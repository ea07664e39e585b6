"""Configuration of the analyzer: `calidrift.toml`, `CALIDRIFT_*` variables, flags.

One call, `load_config`, gives frozen dataclasses that the rest of the analyzer is written against;
pydantic stays behind this border. Precedence: flag, environment, file, default.
"""

from calidrift_analyzer.config._canary import CanaryConfig
from calidrift_analyzer.config._deploy import DeployConfig
from calidrift_analyzer.config._environment import (
    CALIDRIFT_TOKENS,
    process_variables,
    service_tokens,
)
from calidrift_analyzer.config._grafana import GrafanaConfig
from calidrift_analyzer.config._load import CONFIG_NAME, load_config
from calidrift_analyzer.config._retention import RetentionConfig
from calidrift_analyzer.config._service import LOOPBACK, Mode, ServiceConfig
from calidrift_analyzer.config._values import AnalyzerConfig, ModelContract

__all__ = [
    "CALIDRIFT_TOKENS",
    "CONFIG_NAME",
    "LOOPBACK",
    "AnalyzerConfig",
    "CanaryConfig",
    "DeployConfig",
    "GrafanaConfig",
    "Mode",
    "ModelContract",
    "RetentionConfig",
    "ServiceConfig",
    "load_config",
    "process_variables",
    "service_tokens",
]
