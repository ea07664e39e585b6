"""What the figures are held to, all in one table, and who met it.

A bar is met where the whole interval of its figure is on the right side, missed where it is on the
wrong one, and unclear where the interval straddles it: then the machine was too noisy to tell.
"""

from dataclasses import dataclass
from typing import Any, Final

MET, MISSED, UNCLEAR, ABSENT = "met", "MISSED", "unclear", "not measured"


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure and its limit.

    Attributes:
        words: What it is.
        path: Where it stands among the figures: benchmark, then keys.
        limit: Largest value allowed.
    """

    words: str
    path: tuple[str, ...]
    limit: float


def _sampled() -> list[Bar]:
    bars = []
    for kind, request, share, peer in (("native", 1.01, 1 / 15, 1 / 3), ("python", 1.03, 0.2, 1.0)):
        for case in (
            "encoder 1x32",
            "encoder 8x64",
            "resnet18 1x3x224x224",
            "resnet18 8x3x224x224",
        ):
            total = 1.10 if case == "encoder 1x32" else 1.04
            at = ("sampled_pass", kind, case)
            bars += [
                Bar(f"sampled, in the request, {kind}, {case}", (*at, "in-request"), request),
                Bar(f"sampled, with the drain, {kind}, {case}", (*at, "total"), total),
                Bar(f"added ÷ HistogramObserver's, {kind}, {case}", (*at, "over_histogram"), share),
                Bar(f"taps ÷ MinMaxObserver's, {kind}, {case}", (*at, "self_over_minmax"), peer),
            ]
    return bars


BARS: Final[tuple[Bar, ...]] = (
    *(
        Bar(f"unsampled, µs, {kind} of {layers} layers", ("unsampled", f"{kind}_{layers}"), 1.0)
        for kind in ("held", "run")
        for layers in (10, 100, 1000)
    ),
    Bar("unsampled, µs, beside", ("unsampled", "beside"), 1.0),
    Bar("unsampled, µs, edges", ("unsampled", "edges"), 1.0),
    *_sampled(),
    Bar("drain, ms, 40 points", ("drain", "40 points, kept whole, 4096 elements"), 2.0),
    Bar("drain, ms, 200 points", ("drain", "200 points, kept whole, 4096 elements"), 10.0),
    Bar("longest gap, ms, 40", ("drain", "40 points, kept whole, 4096 elements", "gap"), 0.25),
    Bar("longest gap, ms, 200", ("drain", "200 points, kept whole, 4096 elements", "gap"), 0.25),
    Bar("state update, µs, 40 points", ("state_file", "update_40"), 100.0),
    Bar("state update, µs, 200 points", ("state_file", "update_200"), 100.0),
    Bar("torn reads", ("state_file", "torn", "protocol"), 0.0),
    Bar("shadow ÷ compiled INT8 request of 8", ("shadow", "over_batch_8"), 1.5),
    Bar("store, µs per row, commits of 200", ("store", "ingest 200", "us_per_row"), 40.0),
    Bar("store, µs per row, batches of 20,000", ("store", "ingest 20000", "us_per_row"), 10.0),
    Bar("store ÷ raw insert, commits of 200", ("store", "ingest 200", "ratio"), 2.0),
    Bar("store ÷ raw insert, batches of 20,000", ("store", "ingest 20000", "ratio"), 2.0),
    Bar("merging 10 million buckets, ms", ("store", "merge", "merge_ms"), 200.0),
    Bar("totals for status, 200 points x 30 days, ms", ("store", "merge", "totals_ms"), 150.0),
    Bar("service, overview, p99 ms", ("service", "answers", "overview"), 100.0),
    Bar("service, heat map of 30 days, p99 ms", ("service", "answers", "heat map"), 100.0),
    Bar("service, largest page, bytes", ("service", "pages", "bytes"), 200_000.0),
    Bar("service, webhooks lost of 50/s", ("service", "webhooks", "lost"), 0.0),
    Bar("service, jobs doubled by webhooks", ("service", "webhooks", "doubled"), 0.0),
    Bar("service, idle, share of a core", ("service", "idle", "share"), 0.01),
    Bar("service, idle, MB", ("service", "idle", "rss_mb"), 250.0),
    Bar("service, idle, torch loaded", ("service", "idle", "torch"), 0.0),
    Bar("server p50, eager", ("server", "eager", "p50"), 1.01),
    Bar("server p99, eager", ("server", "eager", "p99"), 1.05),
    Bar("server p50, compiled INT8", ("server", "int8", "p50"), 1.01),
    Bar("server p99, compiled INT8", ("server", "int8", "p99"), 1.05),
)


def verdict(found: Any, limit: float) -> tuple[str, str]:
    """Gives the figure as text, and whether it keeps the limit."""
    if isinstance(found, dict):
        if "low" not in found:
            return "", ABSENT
        value = next(found[key] for key in ("median", "us", "ms", "value") if key in found)
        low, high = found["low"], found["high"]
        word = MET if high <= limit else MISSED if low > limit else UNCLEAR
        return f"{value:.4g} [{low:.4g}, {high:.4g}]", word
    if isinstance(found, (int, float)):
        return f"{found:.4g}", MET if found <= limit else MISSED
    return "", ABSENT


def look_up(figures: Any, path: tuple[str, ...]) -> Any:
    """Gives what stands there; None where nothing does."""
    for key in path:
        figures = figures.get(key) if isinstance(figures, dict) else None
    return figures


def judge(figures: dict[str, Any]) -> int:
    """Prints the table of what was measured, and gives the number of bars that were missed."""
    rows = [(bar, *verdict(look_up(figures, bar.path), bar.limit)) for bar in BARS]
    rows = [row for row in rows if row[0].path[0] in figures and row[2] != ABSENT]
    if not rows:
        return 0
    print("Bars")
    for bar, text, word in rows:
        print(f"  {bar.words:56s} {text:>28s}  <= {bar.limit:<7.4g} {word}")
    missed = sum(word == MISSED for *_, word in rows)
    unclear = sum(word == UNCLEAR for *_, word in rows)
    met = len(rows) - missed - unclear
    print(f"  {len(rows)} bars: {missed} missed, {unclear} unclear, {met} met")
    return missed
