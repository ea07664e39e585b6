"""False alarms and delays of Calidrift's alarms and of others, on the same streams.

    python tests/benchmarks/alarms/run.py [--quick] [--json FILE]

Everything is simulated with fixed seeds: what drifted, when, and whether it harms is known. Exits
with 1 where a bar is missed.
"""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monitors import ALPHA, MONITORS, calidrift
from rich.console import Console
from rich.table import Table
from scipy import stats
from streams import CALM, DRIFTS, POINTS, REFERENCE, Drift, Stream, drifting

from calidrift_agent import MagnitudeSketch, PointProfile
from calidrift_agent._state import empty_values
from calidrift_agent._vocabulary import COUNT_COLUMNS, ValueColumn
from calidrift_analyzer.assess import HARM_DB, interval
from calidrift_analyzer.assess._detector import detect_changes
from calidrift_analyzer.assess._harm import harm_of
from calidrift_analyzer.assess._tolerance import log_tolerance_evidence
from calidrift_analyzer.records import PointTotals

TOLERANCE = 0.01
SEGMENTS = 4
Figures = dict[str, Any]


def no_drift(streams: int, compared: int, requests: int) -> list[Figures]:
    """Share of streams without drift that ever alarm."""
    rows = []
    for family in CALM:
        rng = np.random.default_rng([1, CALM.index(family)])
        alarms = dict.fromkeys(MONITORS, 0)
        for number in range(streams):
            stream = family.make(rng, requests)
            asked = MONITORS if number < compared else {"Calidrift": calidrift}
            for name, monitor in asked.items():
                alarms[name] += monitor(stream) is not None
        ours = interval(alarms["Calidrift"], streams, 0.90)  # its upper end: one-sided 95 %
        rows.append(
            {
                "family": family.name,
                "promised": family.promised,
                "streams": streams,
                "false_alarms": {
                    name: count / (streams if name == "Calidrift" else compared)
                    for name, count in alarms.items()
                },
                "upper_bound": ours.high if ours else None,
            }
        )
    return rows


def with_drift(streams: int, before: int, after: int) -> list[Figures]:
    """Observed requests from the change to the alarm, and what is said about harm."""
    rows = []
    for drift in DRIFTS:
        rng = np.random.default_rng([2, DRIFTS.index(drift)])
        delays: dict[str, list[float]] = {name: [] for name in MONITORS}
        early = dict.fromkeys(MONITORS, 0)
        called, segment_delays = [], []
        for _ in range(streams):
            stream, raw = drifting(rng, drift, before, after)
            for name, monitor in MONITORS.items():
                alarm = monitor(stream)
                if alarm is not None and alarm <= before:
                    early[name] += 1
                else:
                    delays[name].append(math.inf if alarm is None else alarm - before)
            called.append(is_called_harmful(stream, next(raw), next(raw)))
            if drift.segment < 1.0:
                segment_delays.append(segment_delay(stream))
        rows.append(summary(drift, delays, early, called, segment_delays, streams))
    return rows


def summary(
    drift: Drift,
    delays: Mapping[str, list[float]],
    early: Mapping[str, int],
    called: list[bool | None],
    segment_delays: list[float],
    streams: int,
) -> Figures:
    return {
        "drift": drift.name,
        "harmful": drift.harmful,
        "streams": streams,
        "called_harmful": sum(one is True for one in called) / streams,
        "median_delay": {n: float(np.median(d)) if d else None for n, d in delays.items()},
        "longest_delay": {n: max(d) if d else None for n, d in delays.items()},
        "early": {name: count / streams for name, count in early.items()},
        "segment_longest_delay": max(segment_delays) if segment_delays else None,
    }


def is_called_harmful(stream: Stream, reference: np.ndarray, production: np.ndarray) -> bool | None:
    """Harm as the assessment judges it, of the point with the widest change."""
    sketches = [MagnitudeSketch(), MagnitudeSketch()]
    for sketch, values in zip(sketches, (reference, production), strict=True):
        sketch.update(values)
    values = empty_values(1)[0]
    values[ValueColumn.LOWEST], values[ValueColumn.HIGHEST] = (
        sketches[1].minimum,
        sketches[1].maximum,
    )
    totals = PointTotals("point", np.zeros(COUNT_COLUMNS, np.int64), values, sketches[1].cells)
    return harm_of(totals, PointProfile("point", sketch=sketches[0])).is_harmful(HARM_DB)


def segment_delay(stream: Stream) -> float:
    """Observed requests *of the segment* until the tolerance alarm of the segment."""
    bound = stream.reference.max(axis=0)
    inside = np.flatnonzero(stream.segment)
    above = np.cumsum((stream.maxima[inside] > bound).any(axis=1))
    evidence = log_tolerance_evidence(above, np.arange(1, inside.size + 1), TOLERANCE)
    crossed = np.flatnonzero(evidence >= math.log(SEGMENTS / ALPHA))
    return float(crossed[0] + 1) if crossed.size else math.inf


def run_lengths(runs: int, stated: float, windows: int) -> Figures:
    """Windows to a false alarm of the renewable alarm, at a share of exactly the tolerance."""
    rng = np.random.default_rng(3)
    lengths = []
    for _ in range(runs):
        counts = rng.binomial(10, TOLERANCE, windows)
        found = detect_changes(
            counts, np.full(windows, 10), tolerance=TOLERANCE, average_run_length=stated
        )
        lengths.append(found.alarms[0] + 1 if found.alarms else windows)
    mean, error = float(np.mean(lengths)), float(np.std(lengths) / math.sqrt(runs))
    return {"stated": stated, "measured": mean, "low": mean - 1.96 * error, "cut_off": windows}


def bars(calm: list[Figures], drifts: list[Figures], lengths: Figures) -> dict[str, bool]:
    """What must hold, by sentence."""
    streams = drifts[0]["streams"]
    blind = next(row for row in drifts if row["drift"].startswith("1e-3"))
    harmless = [row for row in drifts if row["harmful"] is False]
    segment = next(row for row in drifts if row["segment_longest_delay"] is not None)
    promised = [row for row in calm if row["promised"]]
    return {
        "false alarms at most 5 % on every promised family (upper 95 % bound)": all(
            row["upper_bound"] <= ALPHA for row in promised
        ),
        "any exceedance fails on the same streams": all(
            row["false_alarms"]["any exceedance"] > 0.5 for row in promised
        ),
        "KS-blind drift found within 300 observed requests": (
            blind["longest_delay"]["Calidrift"] <= 300
        ),
        "no more early alarms than promised in traffic that drifts later": all(
            row["early"]["Calidrift"] * streams <= stats.binom.ppf(0.999, streams, ALPHA)
            for row in drifts
        ),
        "KS and PSI are blind to it": all(
            not blind["median_delay"][name] < math.inf for name in ("KS p < 5 %", "PSI 0.25")
        ),
        "harmless drift is not called harmful": all(row["called_harmful"] == 0 for row in harmless),
        "drift of one segment found within 200 of its requests": (
            segment["segment_longest_delay"] <= 200
        ),
        "measured average run length at least the stated one": lengths["low"] >= lengths["stated"],
    }


def show(console: Console, calm: list[Figures], drifts: list[Figures], lengths: Figures) -> None:
    table = Table(title=f"No drift: streams that ever alarm ({POINTS} points, n = {REFERENCE})")
    table.add_column("family")
    for name in MONITORS:
        table.add_column(name, justify="right")
    for row in calm:
        cells = [f"{share:.1%}" for share in row["false_alarms"].values()]
        cells[0] += f" (<= {row['upper_bound']:.1%})"
        table.add_row(row["family"], *cells)
    console.print(table)
    table = Table(title="Drift: median requests to the alarm (share alarmed too early)")
    table.add_column("drift")
    for name in MONITORS:
        table.add_column(name, justify="right")
    table.add_column("called harmful", justify="right")
    for row in drifts:
        cells = [
            f"{'-' if delay is None or delay == math.inf else f'{delay:.0f}'} "
            f"({row['early'][name]:.0%})"
            for name, delay in row["median_delay"].items()
        ]
        table.add_row(row["drift"], *cells, f"{row['called_harmful']:.0%}")
    console.print(table)
    console.print(
        f"renewable alarm: one false alarm in {lengths['measured']:.0f} windows on average "
        f"(95 % low end {lengths['low']:.0f}; stated {lengths['stated']:.0f}; runs were cut off "
        f"at {lengths['cut_off']})"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few streams: to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    given = parser.parse_args()
    calm = no_drift(*((60, 4, 1500) if given.quick else (2000, 40, 20_000)))
    drifts = with_drift(*((3, 500, 1000) if given.quick else (40, 1000, 2000)))
    lengths = run_lengths(*((60, 50.0, 1000) if given.quick else (400, 1000.0, 20_000)))
    held = bars(calm, drifts, lengths)
    show(Console(width=200), calm, drifts, lengths)
    for sentence, fine in held.items():
        print(f"{'met   ' if fine else 'MISSED'} {sentence}")
    if given.json is not None:
        figures = {"no_drift": calm, "drift": drifts, "run_length": lengths, "bars": held}
        given.json.write_text(json.dumps(figures, indent=2, default=float) + "\n")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
