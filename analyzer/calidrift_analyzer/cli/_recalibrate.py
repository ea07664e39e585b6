"""`calidrift recalibrate`."""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.assess import judged
from calidrift_analyzer.cli._assessed import note_skipped
from calidrift_analyzer.cli._output import Output
from calidrift_analyzer.collect import collect
from calidrift_analyzer.config import AnalyzerConfig, ModelContract, load_config
from calidrift_analyzer.cycle import candidates_folder, save_candidates
from calidrift_analyzer.errors import ConfigurationError, NoDataError
from calidrift_analyzer.ranges import Estimator
from calidrift_analyzer.recalibrate import recalibrate as make_candidates
from calidrift_analyzer.records import Candidate, Production
from calidrift_analyzer.service import open_store

__all__ = ["recalibrate"]


class From(StrEnum):
    """What `--from` takes."""

    SKETCH = "sketch"
    SAMPLES = "samples"
    BOTH = "both"


def recalibrate(
    invocation: Invocation,
    model: Annotated[
        str | None,
        typer.Argument(help="Model of the configuration; not needed where there is only one."),
    ] = None,
    source: Annotated[
        From,
        typer.Option("--from", help="Production sketches, calibration set with samples, or both."),
    ] = From.BOTH,
    estimator: Annotated[
        list[Estimator] | None,
        typer.Option("--estimator", help="Only this estimator; may be given several times."),
    ] = None,
    selection: Annotated[
        Path | None,
        typer.Option(
            help="What `calidrift select` saved (default: MODEL.selection.json beside the file)."
        ),
    ] = None,
) -> None:
    """Make candidates with new ranges.

    The FP32 model is quantized anew in a child process: from production sketches alone, which
    needs no data, and from the calibration set with the selected requests. What serves is not
    touched.
    """
    config = load_config(invocation.config)
    contract = config.model(model)
    out = Output(invocation)
    production = None
    if source is not From.SAMPLES:
        production = _production(config, contract, out, required=source is From.SKETCH)
    samples = None if source is From.SKETCH else _samples(contract, selection, out)
    with out.progress("recalibrating") as progress:
        candidates = make_candidates(
            contract,
            candidates_folder(contract),
            production=production,
            samples=samples,
            estimators=tuple(estimator or Estimator),
            progress=progress,
        )
    save_candidates(contract, candidates)
    _show(out, contract, candidates, len(samples or ()))


def _production(
    config: AnalyzerConfig, contract: ModelContract, out: Output, *, required: bool
) -> Production | None:
    """Collect, then take the sketches under the profile that is judged."""
    with open_store(config) as store:
        with out.progress("collecting"):
            collected = collect(config.state_dirs, store)
        found = judged(store, contract.name, contract)
        totals = None if found is None else store.totals(contract.name, found.profile)
    note_skipped(out, collected)
    if totals is not None and any(point.units for point in totals.points):
        return Production.of_totals(totals)
    if required:
        raise NoDataError(
            f"nothing was recorded about model {contract.name!r}, so there are no sketches; check "
            "the name given to watch(..., name=...), or recalibrate --from samples"
        )
    out.note("no production sketches were recorded; candidates come from samples alone")
    return None


def _samples(contract: ModelContract, selection: Path | None, out: Output) -> Sequence[Path]:
    path = selection or contract.root / f"{contract.name}.selection.json"
    if selection is None and not path.exists():
        out.note(f"there is no {path.name}: the calibration set alone, without selected requests")
        return ()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        selected = [Path(one["path"]) for one in document["selected"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} is not what `calidrift select` saved ({type(error).__name__}: {error}); "
            "run it again"
        ) from error
    if document.get("model") != contract.name:
        raise ConfigurationError(
            f"{path} was selected for model {document.get('model')!r}, not {contract.name!r}; "
            f"run `calidrift select {contract.name}`"
        )
    return selected


def _show(
    out: Output, contract: ModelContract, candidates: Sequence[Candidate], samples: int
) -> None:
    out.table(
        f"{contract.name}: {len(candidates)} candidates, {samples} selected requests",
        ("candidate", "reference units", "worst point", "predicted SQNR dB", "layers in INT8"),
        [
            (
                one.id,
                one.units,
                one.worst_point or None,
                None if one.worst_sqnr_db is None else f"{one.worst_sqnr_db:.1f}",
                len(one.layers),
            )
            for one in candidates
        ],
    )
    out.show(f"next: calidrift validate {contract.name}")
    out.document({"model": contract.name, "samples": samples, "candidates": candidates})
