"""`calidrift reference`."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_agent._profile import CalibrationProfile
from calidrift_analyzer.assess import AssessRules
from calidrift_analyzer.cli._output import Output, count
from calidrift_analyzer.collect import collect
from calidrift_analyzer.config import AnalyzerConfig, load_config
from calidrift_analyzer.cycle import LearnOptions, learn_reference, observed_profile
from calidrift_analyzer.errors import ConfigurationError, NoDataError
from calidrift_analyzer.service import open_store

__all__ = ["Action", "reference"]

_SHOWN = 3


@final
class Action(StrEnum):
    """What `calidrift reference` does."""

    LEARN = "learn"
    SHOW = "show"


def reference(
    invocation: Invocation,
    action: Annotated[
        Action,
        typer.Argument(
            help="learn: random units of production become the observed bounds. show: say what the "
            "bounds are made of."
        ),
    ] = Action.SHOW,
    model: Annotated[
        str | None, typer.Argument(help="Model; not needed where there is only one.")
    ] = None,
    units: Annotated[
        int | None,
        typer.Option(min=2, help="Units to learn from (default: reference_units, 512)."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Digest, or its start, of the profile they were observed under."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write the profile to this file and leave the registry alone."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Learn from traffic that raised an alarm, or is suspected."),
    ] = False,
) -> None:
    """Learn the reference of a model from random units of production, or show it.

    For a profile that was read from a graph, an ONNX file or a TensorRT cache (ranges only), and
    after a promotion, whose bounds come from samples that were selected. The first units that were
    observed under the profile, as whole windows, give each point its bound: their largest absmax.
    The profile joins the model that serves as a version of its own; processes load it as any
    promoted version, and `calidrift rollback` goes back.
    """
    config = load_config(invocation.config)
    out = Output(invocation)
    if action is Action.SHOW and (units or output or force):
        raise ConfigurationError(
            "'calidrift reference show' only looks: --units, --output and --force belong to "
            "'calidrift reference learn'"
        )
    name = _model(config, model)
    if action is Action.SHOW:
        _show(config, name, profile, out)
        return
    options = LearnOptions(units=units, profile=profile, output=output, force=force)
    with out.progress("learning the reference"):
        found = learn_reference(config, name, options)
    where = f"version {found.version}" if found.version else str(found.path)
    if found.changed:
        out.show(
            f"learned: {count(found.units, 'random unit')} of {name}, {found.began} to "
            f"{found.ended}, are the reference of {count(found.bounds, 'point')}",
            f"{where} serves now, in every process that loads it"
            if found.version
            else f"written to {where}; give it to watch(..., profile=...)",
        )
    else:
        out.show(
            f"nothing to do: {where} has the reference of {count(found.units, 'random unit')} that "
            f"were observed from {found.began} to {found.ended}"
        )
    if found.publication is not None:
        out.note(found.publication)
    if found.unobserved:
        out.note(
            f"no unit ran through {_listed(found.unobserved)}: "
            f"{'it has' if len(found.unobserved) == 1 else 'they have'} no observed bound now"
        )
    out.document({"action": action, **asdict(found)})


def _model(config: AnalyzerConfig, model: str | None) -> str:
    if model is not None:
        return model
    if config.models:
        return config.model().name
    if not config.database.exists():
        raise NoDataError(
            f"there is no database {config.database} yet and no model is declared; name the model "
            "as it was named in watch(..., name=...)"
        )
    with open_store(config) as store:
        collect(config.state_dirs, store)
        recorded = sorted({one.model for one in store.observed()})
    if len(recorded) != 1:
        raise ConfigurationError(
            f"which model? recorded are: {', '.join(recorded) or 'none'}; name one of them"
        )
    return recorded[0]


def _show(config: AnalyzerConfig, model: str, digest: str | None, out: Output) -> None:
    declared = config.models.get(model)
    rules = AssessRules() if declared is None else AssessRules.of(declared)
    with open_store(config) as store:
        collect(config.state_dirs, store)
        chosen, profile = observed_profile(store, model, digest, declared)
        units = store.references.first_units(
            model, chosen.profile, chosen.instrument, rules.reference_units
        )
    out.show(f"{model}: profile {profile.digest[:12]}", _told(profile))
    needed = not profile.reference.is_random or len(profile.unobserved) == len(profile.points)
    if needed:
        out.show(
            f"{units.measured:,} random units were observed under it, {units.wanted:,} are wanted"
            + ("; run `calidrift reference learn`" if not units.missing else units.time_left)
        )
    out.table(
        "points",
        ("point", "observed bound", "rank", "units"),
        [
            (one.name, bound.value, bound.rank, bound.units)
            if (bound := one.observed_bound) is not None
            else (one.name, None, None, None)
            for one in profile.points.values()
        ],
    )
    out.document(
        {
            "action": Action.SHOW,
            "model": model,
            "profile": profile.digest,
            "instrument": profile.instrument,
            "source": profile.reference.source if profile.units else None,
            "learned_from": profile.reference.learned_from or None,
            "began": profile.reference.began or None,
            "ended": profile.reference.ended or None,
            "reference_units": profile.units,
            "unobserved": profile.unobserved,
            "measured_units": units.measured,
            "wanted_units": units.wanted,
            "learn": needed,
        }
    )


def _told(profile: CalibrationProfile) -> str:
    """Say what the bounds of a profile are made of."""
    origin, units = profile.reference, count(profile.units, "unit")
    if not origin.is_random:
        return (
            f"its bounds are provisional: {units} of a recalibration, which are no random sample "
            "of production"
        )
    if len(profile.unobserved) == len(profile.points):
        return "it has ranges only and no observed bound"
    if origin.learned_from:
        return (
            f"its bounds are of {units} of production, observed from {origin.began} to "
            f"{origin.ended} under profile {origin.learned_from[:12]}"
        )
    return f"its bounds are of {units} of a calibration set"


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
