"""What `status` and `coverage` have in common: collect, assess, keep, and say what was skipped."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from calidrift_analyzer.assess import AssessRules, assess, assess_stored
from calidrift_analyzer.cli._output import Output, moment
from calidrift_analyzer.collect import CollectReport, collect
from calidrift_analyzer.config import CONFIG_NAME, AnalyzerConfig
from calidrift_analyzer.errors import NoDataError
from calidrift_analyzer.records import ModelAssessment, record_document
from calidrift_analyzer.service import open_store
from calidrift_analyzer.store import Store

__all__ = ["Assessed", "assess_models", "interval_text", "note_skipped"]


@final
@dataclass(frozen=True, slots=True)
class Assessed:
    """One collect run, and what it comes to for each model."""

    collected: CollectReport
    models: tuple[ModelAssessment, ...]

    def document(self) -> dict[str, object]:
        """Give the JSON document."""
        return {"collected": self.collected, "models": self.models}


def assess_models(config: AnalyzerConfig, model: str | None, output: Output) -> Assessed:
    """Collect what agents have written, then assess.

    Args:
        config: The configuration.
        model: Only this model; default: every model that is declared or was recorded.
        output: Where progress and remarks go.

    Returns:
        The assessments; they are recorded in the store as well.

    Raises:
        NoDataError: The named model is neither declared nor recorded, or there is none at all.
        StoreError: The database cannot be used.
    """
    _require_a_place(config)
    with open_store(config) as store:
        with output.progress("collecting"):
            collected = collect(config.state_dirs, store)
        with output.progress("assessing"):
            found = tuple(
                store.annotations.annotate(_assess(store, name, config))
                for name in _names(store, config, model)
            )
            for assessment in found:
                store.outcomes.record_assessment(
                    assessment, json.dumps(record_document(assessment))
                )
        beside = [
            remark
            for assessment in found
            for remark in (*_beside(store, assessment), *_not_loaded(store, assessment))
        ]
    note_skipped(output, collected)
    for remark in beside:
        output.note(remark)
    return Assessed(collected, found)


def note_skipped(output: Output, collected: CollectReport) -> None:
    """Say what could not be read; the reasons name the file mostly themselves."""
    for skipped in collected.skipped:
        where = "" if str(skipped.path) in skipped.reason else f" {skipped.path}"
        output.note(f"skipped{where}: {skipped.reason}")


def _beside(store: Store, assessment: ModelAssessment) -> list[str]:
    """Name profiles under which traffic still runs, though another one is judged."""
    return [
        f"{assessment.model}: judged under profile {assessment.profile[:12] or '(none)'}; traffic "
        f"at the same time under profile {other.profile[:12] or '(none)'} is not part of it: some "
        "processes serve another version"
        for other in store.observed(assessment.model)
        if assessment.last_ns
        and other.profile != assessment.profile
        and other.last_ns > assessment.first_ns
    ]


def _not_loaded(store: Store, assessment: ModelAssessment) -> list[str]:
    """Say that the registry's current version is not the one whose traffic is judged."""
    moves = store.outcomes.versions(assessment.model)
    if not moves or moves[0].profile == assessment.profile:
        return []
    current = moves[0]
    reported = {one.profile: one.last_ns for one in store.observed(assessment.model)}
    if reported.get(current.profile, 0) > current.created_ns:
        return []
    return [
        f"{assessment.model}: {current.version} is the registry's current version since "
        f"{moment(current.created_ns)}, but no process has reported under its profile since then; "
        "what follows is about another version, until the service loads this one"
    ]


def _require_a_place(config: AnalyzerConfig) -> None:
    """Refuse to make a database where `calidrift` was called in the wrong folder."""
    if config.source is None and not config.state_dirs and not config.database.exists():
        raise NoDataError(
            f"there is no {CONFIG_NAME} in {config.database.parent}, and nothing was recorded "
            "there; go to the folder where it is, or name it: --config FILE"
        )


def _names(store: Store, config: AnalyzerConfig, model: str | None) -> Sequence[str]:
    recorded = [one.model for one in store.observed()]
    if model is not None:
        if model not in recorded and model not in config.models:
            known = ", ".join(dict.fromkeys([*recorded, *config.models])) or "none"
            raise NoDataError(
                f"no model {model!r} is declared or was recorded (known: {known}); name one of "
                "these, or check the name given to watch(..., name=...)"
            )
        return [model]
    if not recorded and not config.models:
        listed = ", ".join(str(folder) for folder in config.state_dirs) or "none"
        raise NoDataError(
            f"nothing was recorded yet and no model is declared (state_dirs: {listed}); list the "
            "state_dir of the service under state_dirs in calidrift.toml"
        )
    return list(dict.fromkeys([*recorded, *config.models]))


def _assess(store: Store, model: str, config: AnalyzerConfig) -> ModelAssessment:
    declared = config.models.get(model)
    rules = AssessRules() if declared is None else AssessRules.of(declared)
    if not store.observed(model):  # declared only: that there is no data is the answer
        return assess(store.totals(model, ""), store.history(model, ""), None, rules)
    return assess_stored(store, model, contract=declared, rules=rules)


def interval_text(low: float, high: float) -> str:
    """Write the bounds of a proportion in percent.

    >>> interval_text(0.0, 0.0362), interval_text(0.99, 1.0), interval_text(6e-7, 0.0176)
    ('0 to 3.62 %', '99 to 100 %', '0 to 1.76 %')
    """
    return f"{0.0 if low < 1e-5 else 100 * low:.3g} to {100 * high:.3g} %"
