"""Configuration of the analyzer: `calidrift.toml`, `CALIDRIFT_*` variables, flags.

One call, `load_config`, gives frozen dataclasses that the rest of the analyzer is written against;
pydantic stays behind this border. Precedence: flag, environment, file, default.
"""

from calidrift_analyzer.config._environment import process_variables
from calidrift_analyzer.config._load import CONFIG_NAME, load_config
from calidrift_analyzer.config._values import AnalyzerConfig, ModelContract

__all__ = ["CONFIG_NAME", "AnalyzerConfig", "ModelContract", "load_config", "process_variables"]
