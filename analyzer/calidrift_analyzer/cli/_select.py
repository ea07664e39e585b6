"""`calidrift select`."""

import json
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from calidrift_agent._command_line import Invocation, jsonable
from calidrift_analyzer.assess import judged
from calidrift_analyzer.cli._assessed import note_skipped
from calidrift_analyzer.cli._output import Output, count, number, share
from calidrift_analyzer.collect import collect
from calidrift_analyzer.config import AnalyzerConfig, ModelContract, load_config
from calidrift_analyzer.cycle import StoredPool, stored_pool
from calidrift_analyzer.errors import ConfigurationError, NoDataError
from calidrift_analyzer.records import CandidatePool, Selection
from calidrift_analyzer.select import select as select_requests
from calidrift_analyzer.service import open_store

__all__ = ["select"]

_SHOWN: Final = 12
"""Picks that people see; the file and --json have all."""


def select(
    invocation: Invocation,
    model: Annotated[
        str | None,
        typer.Argument(help="Model of the configuration; not needed where there is only one."),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="Most requests to pick (default: select_budget).")
    ] = None,
    random_share: Annotated[
        float | None, typer.Option(help="Share drawn at random (default: random_share).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the draw (default: seed).")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Where to save the list (default: MODEL.selection.json beside the file).",
        ),
    ] = None,
) -> None:
    """Choose the captured requests that close the gap in the calibration set.

    Reads the state directories first. Greedy picks remove the most clipped energy; a share of the
    budget is drawn at random from the uncovered requests. The certificate says how close to the
    best possible choice the picks are. Requests that stand out alone are kept out and named.
    """
    name = load_config(invocation.config).model(model).name
    given = {"select_budget": budget, "random_share": random_share, "seed": seed}
    flags = {f"models.{name}.{key}": value for key, value in given.items()}
    config = load_config(invocation.config, flags=flags)
    contract = config.models[name]
    out = Output(invocation)
    stored = _pool(config, name, out)
    with out.progress("selecting"):
        selection = select_requests(
            stored.pool,
            contract.select_budget,
            random_share=contract.random_share,
            seed=contract.seed,
        )
    document = _document(contract, stored, selection)
    target = (output or contract.root / f"{name}.selection.json").absolute()
    _save(target, document)
    _show(out, contract, stored, selection)
    out.show(f"saved as {target}")
    if selection.ids:
        out.show(f"next: calidrift recalibrate {name}")
    out.document({**document, "saved": target})


def _pool(config: AnalyzerConfig, model: str, out: Output) -> StoredPool:
    """Collect, then read the captures that were compared with the profile that is judged."""
    with open_store(config) as store:
        with out.progress("collecting"):
            collected = collect(config.state_dirs, store)
        note_skipped(out, collected)
        found = judged(store, model, config.models.get(model))
        if found is None:
            listed = ", ".join(str(folder) for folder in config.state_dirs) or "none"
            raise NoDataError(
                f"nothing was recorded about model {model!r} (state_dirs: {listed}); check the "
                "name given to watch(..., name=...) and list its state_dir under state_dirs"
            )
        stored = stored_pool(store, model, found.profile)
    for sentence in stored.skipped:
        out.note(f"skipped: {sentence}")
    return stored


def _worst(pool: CandidatePool) -> dict[str, tuple[str, float]]:
    """Give for each request the point where it exceeds its bound most, and by what factor."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = pool.maxima / pool.bounds
    ratios[np.isnan(pool.maxima)] = np.inf
    ratios[:, np.isnan(pool.bounds)] = -np.inf
    where = np.nan_to_num(ratios, nan=-np.inf, posinf=np.inf, neginf=-np.inf).argmax(axis=1)
    return {
        name: (pool.points[point], float(ratios[row, point]))
        for row, (name, point) in enumerate(zip(pool.ids, where.tolist(), strict=True))
    }


def _document(
    contract: ModelContract, stored: StoredPool, selection: Selection
) -> dict[str, object]:
    segments = dict(zip(stored.pool.ids, stored.pool.segments, strict=True))
    worst = _worst(stored.pool)
    return {
        "model": contract.name,
        "budget": contract.select_budget,
        "captured": len(stored.pool.ids),
        "uncovered": selection.uncovered,
        "selected": [
            {
                "id": one,
                "path": stored.paths[one],
                "picked_by": why,
                "segment": segments[one],
                "worst_point": worst[one][0],
                "ratio": worst[one][1],
            }
            for one, why in zip(selection.ids, selection.picked_by, strict=True)
        ],
        "selected_by": selection.by_segment,
        "value": selection.value,
        "attainable": selection.attainable,
        "upper_bound": selection.upper_bound,
        "certificate": selection.certificate,
        "suspicious": selection.suspicious,
        "skipped": stored.skipped,
    }


def _save(target: Path, document: dict[str, object]) -> None:
    """Write the list in one step: a reader sees the old one or the new one."""
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(jsonable(document), indent=2), encoding="utf-8")
        temporary.replace(target)
    except OSError as error:
        raise ConfigurationError(
            f"the selection cannot be saved as {target} ({error.strerror}); name another file "
            "with --output"
        ) from error


def _show(out: Output, contract: ModelContract, stored: StoredPool, selection: Selection) -> None:
    pool = stored.pool
    segments = dict(zip(pool.ids, pool.segments, strict=True))
    worst = _worst(pool)
    out.show(
        f"{contract.name}: {selection.uncovered:,} of {len(pool.ids):,} captured requests exceed "
        f"a bound; {len(selection.ids)} picked, at most {contract.select_budget}"
    )
    if selection.ids:
        out.table(
            "In the order of picking",
            ("request", "picked by", "segment", "worst point", "maximum / bound"),
            [
                (one, why, segments[one] or "-", worst[one][0], number(worst[one][1]))
                for one, why in list(zip(selection.ids, selection.picked_by, strict=True))[:_SHOWN]
            ],
        )
        if len(selection.ids) > _SHOWN:
            out.show(f"and {count(len(selection.ids) - _SHOWN, 'request')} more, all in the file")
        by = ", ".join(f"{name or 'no segment'} {n}" for name, n in selection.by_segment.items())
        out.show(f"by segment: {by}")
    if selection.attainable > 0:
        out.show(
            f"certificate: at least {share(selection.certificate)} of what the best choice within "
            f"the budget would remove; the picks remove "
            f"{share(selection.value / selection.attainable)} of the clipped energy that all "
            "captured requests could"
        )
    elif not selection.ids:
        what = "captured request is inside the observed bounds"
        what = "such request was kept out" if selection.uncovered else what
        out.show(f"nothing to pick: every {what}")
    else:
        out.show("the picks remove no clipped energy that could be predicted")
    for one in selection.suspicious:
        out.note(
            f"kept out {one.id} ({one.reason.replace('_', ' ')}): maximum "
            f"{number(one.maximum)} at {one.point}; look at it before using it"
        )
