"""The pydantic side of the configuration: types, ranges and the order of the sources.

Validation is strict (a file that says `alpha = "0.05"` or `seed = true` is refused), so variables
are turned into typed values by their source before they get here.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from calidrift_agent._registry import check_url, is_url
from calidrift_analyzer.config._canary import CANARY_WORDS, CanarySettings
from calidrift_analyzer.config._deploy import DEPLOY_WORDS, DeploySettings
from calidrift_analyzer.config._grafana import GrafanaSettings
from calidrift_analyzer.config._service import ServiceSettings

__all__ = ["AnalyzerSettings", "ModelSettings", "Settings", "combine"]

_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _reference(value: str) -> str:
    if not _REFERENCE.fullmatch(value):
        raise ValueError("not a code reference")
    return value


def _folder(value: str) -> str:
    if is_url(value):
        raise ValueError("a URL")
    return value


def _registry_url(value: str) -> str:
    url = check_url(value)
    import fsspec  # takes a tenth of a second

    protocol = url.partition("://")[0]
    if protocol not in (*fsspec.available_protocols(), *fsspec.registry):
        raise ValueError("an unknown protocol")
    return url


def _model_name(value: str) -> str:
    if not _MODEL_NAME.fullmatch(value):
        raise ValueError("not a model name")
    return value


# Every description completes the sentence "allowed is ...": it is what a bad value is told.
_CODE = "a code reference of the form 'package.module:callable'"
_PATH = "a path; a relative one in a file starts at that file's folder"
_FOLDER = f"{_PATH}, and the URL where versions are published is registry_url"
_URL = (
    "a URL that fsspec knows, such as 's3://bucket/models', without a password (the store's own "
    "package takes it from the environment)"
)
_CENTURY = 36_500  # days
Reference = Annotated[str, AfterValidator(_reference)]
PathText = Annotated[str, Field(min_length=1)]


@final
class ModelSettings(BaseModel):
    """A table `[models.NAME]`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    factory: Annotated[Reference, Field(description=_CODE)]
    example_inputs: Annotated[Reference, Field(description=_CODE)]
    calibration: Annotated[Reference, Field(description=_CODE)]
    evaluate: Annotated[Reference, Field(description=_CODE)]
    weights: Annotated[PathText | None, Field(description=_PATH)] = None
    registry: Annotated[PathText, AfterValidator(_folder), Field(description=_FOLDER)] = "registry"
    registry_url: Annotated[
        Annotated[str, AfterValidator(_registry_url)] | None, Field(description=_URL)
    ] = None
    preprocessing: Annotated[str | None, Field(description="a text")] = None
    coverage_target: Annotated[
        float, Field(gt=0, lt=1, description="a number above 0 and below 1")
    ] = 0.95
    max_accuracy_drop: Annotated[
        float, Field(ge=0, le=1, description="a number from 0 to 1 (0.01 is one point)")
    ] = 0.01
    alpha: Annotated[float, Field(gt=0, lt=1, description="a number above 0 and below 1")] = 0.05
    tolerance: Annotated[
        float, Field(gt=0, lt=1, description="a number above 0 and below 1 (0.01 is one percent)")
    ] = 0.01
    average_run_length: Annotated[
        float, Field(ge=1, allow_inf_nan=False, description="a number of windows from 1")
    ] = 100_000.0
    harm_tolerance: Annotated[
        float, Field(gt=0, lt=1, description="a number above 0 and below 1 (0.05 is five percent)")
    ] = 0.05
    reference_units: Annotated[int, Field(ge=2, description="a whole number from 2")] = 512
    select_budget: Annotated[int, Field(ge=1, description="a whole number from 1")] = 64
    random_share: Annotated[float, Field(ge=0, le=1, description="a number from 0 to 1")] = 0.25
    min_size_ratio: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="a number above 0")
    ] = 3.9
    seed: Annotated[int, Field(ge=0, lt=2**63, description="a whole number from 0")] = 0
    deploy: Annotated[DeploySettings | None, Field(description=DEPLOY_WORDS)] = None
    canary: Annotated[CanarySettings | None, Field(description=CANARY_WORDS)] = None


@final
class AnalyzerSettings(BaseModel):
    """The table `[analyzer]`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    database: Annotated[PathText, Field(description=_PATH)] = "calidrift.duckdb"
    state_dirs: Annotated[list[PathText], Field(description="a list of paths")] = []
    keep_windows_hours: Annotated[
        float, Field(gt=0, le=_CENTURY * 24, description="a number of hours above 0")
    ] = 168.0
    keep_minutes_days: Annotated[
        float, Field(gt=0, le=_CENTURY, description="a number of days above 0")
    ] = 30.0
    keep_hours_days: Annotated[
        float, Field(gt=0, le=_CENTURY, description="a number of days above 0")
    ] = 365.0
    keep_days_years: Annotated[
        float, Field(gt=0, le=100, description="a number of years above 0, at most 100")
    ] = 10.0
    max_database_bytes: Annotated[
        int | None, Field(ge=1, description="a whole number of bytes above 0")
    ] = None


class Settings(BaseSettings):
    """The whole file; only `combine` makes one, so nothing is read behind its back."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        extra="forbid", strict=True, frozen=True, case_sensitive=True
    )

    analyzer: AnalyzerSettings = AnalyzerSettings()
    service: ServiceSettings = ServiceSettings()
    grafana: GrafanaSettings = GrafanaSettings()
    models: dict[Annotated[str, AfterValidator(_model_name)], ModelSettings] = {}


def combine(*layers: Mapping[str, Any]) -> Settings:
    """Merge layers of settings key by key, the first one strongest, and validate the result.

    Args:
        *layers: Nested mappings in the shape of the file.

    Returns:
        The validated settings.

    Raises:
        pydantic.ValidationError: A value or a key is not allowed.

    >>> weak = {"analyzer": {"database": "weak.duckdb", "state_dirs": ["s"]}}
    >>> merged = combine({"analyzer": {"database": "strong.duckdb"}}, weak)
    >>> merged.analyzer.database, merged.analyzer.state_dirs
    ('strong.duckdb', ['s'])
    """

    @final
    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            *args: PydanticBaseSettingsSource,
            **kwargs: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(_Layer(settings_cls, layer) for layer in layers)

    return Layered()


@final
class _Layer(PydanticBaseSettingsSource):
    """A source that gives a whole mapping, unknown keys included, so that they are refused."""

    def __init__(self, settings_cls: type[BaseSettings], layer: Mapping[str, Any]) -> None:
        super().__init__(settings_cls)
        self._layer = dict(layer)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._layer.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._layer
