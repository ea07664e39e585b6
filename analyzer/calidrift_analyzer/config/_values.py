"""What a loaded configuration is: frozen values with absolute paths."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import final

from calidrift_analyzer.config._canary import CanaryConfig
from calidrift_analyzer.config._deploy import DeployConfig
from calidrift_analyzer.config._grafana import GrafanaConfig
from calidrift_analyzer.config._retention import RetentionConfig
from calidrift_analyzer.config._service import ServiceConfig
from calidrift_analyzer.errors import ConfigurationError

__all__ = ["AnalyzerConfig", "ModelContract"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContract:
    """What the analyzer may run for one model, and what its gate demands.

    The four code references have the form `package.module:callable`. They are imported in a child
    process only, with `root` first on its module search path.

    Attributes:
        name: Name of the model, the same as in `watch(..., name=...)`.
        root: Folder from which the code references are imported: that of the configuration file.
        factory: Builds the FP32 model.
        example_inputs: Gives one tuple of inputs that the model can be exported with.
        calibration: Gives the batches of the calibration set.
        evaluate: Measures a model on the split `select`, `gate` or `report`.
        registry: Folder of the versions of every model.
        registry_url: Where the version that serves is published for processes on other machines:
            any URL that fsspec knows; `None` for nowhere.
        weights: Weights for the model that `factory` builds; `None` where the factory loads them.
        preprocessing: What identifies the preprocessing, for the fingerprint; free text.
        coverage_target: Least lower 95 % bound of held-out request coverage, in (0, 1).
        max_accuracy_drop: Most that accuracy may fall below FP32, absolute, in [0, 1].
        alpha: False alarm probability over the whole life of a watch, all points together.
        tolerance: Share of units that may leave the observed bounds: the service level, in (0, 1).
        average_run_length: Windows between two false alarms of the renewable alarm, at least 1.
        harm_tolerance: Mean loss of served outputs beside the FP32 reference that is tolerated, in
            (0, 1): share of units with another most likely class, or noise energy ÷ signal energy.
        reference_units: Random units of production that a learned reference is made of, at least 2.
        select_budget: Most captured requests to add to the calibration set.
        random_share: Share of the budget that is drawn at random, in [0, 1].
        min_size_ratio: Least FP32 bytes ÷ INT8 bytes of the planned tensors with their scales.
        seed: Seed of everything random in recalibration.
        deploy: What another deployment system is told of a move; `None`: there is none.
        canary: How long canaries serve a version before all do; `None`: all do at once.
    """

    name: str
    root: Path
    factory: str
    example_inputs: str
    calibration: str
    evaluate: str
    registry: Path
    registry_url: str | None = None
    weights: Path | None = None
    preprocessing: str | None = None
    coverage_target: float = 0.95
    max_accuracy_drop: float = 0.01
    alpha: float = 0.05
    tolerance: float = 0.01
    average_run_length: float = 100_000.0
    harm_tolerance: float = 0.05
    reference_units: int = 512
    select_budget: int = 64
    random_share: float = 0.25
    min_size_ratio: float = 3.9
    seed: int = 0
    deploy: DeployConfig | None = None
    canary: CanaryConfig | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzerConfig:
    """The whole configuration of one analyzer.

    Attributes:
        database: The DuckDB file.
        state_dirs: Folders where agents write their state files.
        models: The declared models by name, in the order of the file.
        source: The file that was read; `None` where only variables, flags and defaults count.
        service: What `calidrift serve` is told.
        grafana: Where dashboards and alerts go.
        retention: How long the database keeps what.
    """

    database: Path
    state_dirs: tuple[Path, ...]
    models: Mapping[str, ModelContract]
    source: Path | None = None
    service: ServiceConfig = field(default_factory=ServiceConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    grafana: GrafanaConfig = field(default_factory=GrafanaConfig)

    def model(self, name: str | None = None) -> ModelContract:
        """Give the contract of one model.

        Args:
            name: Its name; may be left out where exactly one model is declared.

        Returns:
            The contract.

        Raises:
            ConfigurationError: No such model is declared, or the choice is not clear.
        """
        where = self.source or "calidrift.toml"
        if not self.models:
            raise ConfigurationError(
                f"no model is declared in {where}; add a table [models.NAME] with factory, "
                "example_inputs, calibration and evaluate"
            )
        declared = ", ".join(self.models)
        if name is None:
            if len(self.models) == 1:
                return next(iter(self.models.values()))
            raise ConfigurationError(f"several models are declared; name one of: {declared}")
        if name not in self.models:
            near = get_close_matches(name, self.models, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"declared: {declared}"
            raise ConfigurationError(f"no model {name!r} is declared in {where}; {hint}")
        return self.models[name]
