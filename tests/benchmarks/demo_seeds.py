"""The demo on seeds 0 to 9: every bar that it must clear, each run in a process of its own.

Run by itself it ends with status 1 where a bar was missed; `exit_code` tells the same to others.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

SEEDS = range(10)
POINT = 0.01
NO_RESULT = "the demo ends with a result"

BARS = {
    "FP32 at least 94 %": lambda d: d["fp32_accuracy"] >= 0.94,
    "stale at least 5 points below FP32": lambda d: (
        d["fp32_accuracy"] - d["stale_int8_accuracy"] >= 5 * POINT
    ),
    "stale at least 15 points below FP32 in the worst segment": lambda d: (
        d["fp32_worst_segment_accuracy"] - d["stale_worst_segment_accuracy"] >= 15 * POINT
    ),
    "recalibrated within 1 point of FP32": lambda d: (
        abs(d["fp32_accuracy"] - d["recalibrated_int8_accuracy"]) <= POINT
    ),
    "sketch-only within 1.5 points of FP32": lambda d: (
        abs(d["fp32_accuracy"] - d["sketch_only_int8_accuracy"]) <= 1.5 * POINT
    ),
    "alarm within 50 observed requests": lambda d: 0 < d["observed_until_alarm"] <= 50,
    "no alarm before the shift": lambda d: not d["alarm_before_shift"],
    "size ratio at least 3.9": lambda d: d["size_ratio"] >= 3.9,
    "every INT8 kernel": lambda d: 0 < d["int8_kernels_planned"] == d["int8_kernels_found"],
    "under 4 minutes": lambda d: d["wall_seconds"] < 240,
}


def main(quick: bool = False) -> dict[str, object]:
    print("the demo (accuracies in % of the report split; worst = worst segment)")
    print(
        f"{'seed':>4} {'fp32':>6} {'stale':>6} {'recal':>6} {'sketch':>6} {'worst fp32':>10} "
        f"{'stale':>6} {'coverage':>13} {'alarm obs':>9} {'served':>6} {'own/fwd':>7} "
        f"{'int8/fp32':>9} {'size':>5} {'s':>4}  promoted"
    )
    documents = {}
    missed: dict[int, list[str]] = {}
    for seed in SEEDS[:1] if quick else SEEDS:
        document = run(seed)
        missed[seed] = missed_bars(document)
        if document is None:
            print(f"{seed:>4}", flush=True)
        else:
            documents[seed] = document
            print(row(document), flush=True)
        for name in missed[seed]:
            print(f"     MISSED: {name}", flush=True)
    print(summary(missed))
    return {"documents": documents, "missed": missed}


def missed_bars(document: Mapping[str, object] | None) -> list[str]:
    """Gives the bars that a run did not clear; one whose figures are not there is not cleared."""
    if document is None:
        return [NO_RESULT]
    return [name for name, holds in BARS.items() if not _holds(holds, document)]


def _holds(holds: Callable[[Mapping[str, object]], bool], document: Mapping[str, object]) -> bool:
    try:
        return bool(holds(document))
    except (KeyError, TypeError):
        return False


def summary(missed: Mapping[int, list[str]]) -> str:
    """Says how many seeds clear every bar, and for each missed bar on which seeds."""
    clear = sum(not names for names in missed.values())
    lines = [f"{clear} of {len(missed)} seeds clear every bar"]
    for bar in (NO_RESULT, *BARS):
        seeds = [str(seed) for seed, names in missed.items() if bar in names]
        if seeds:
            lines.append(f"MISSED: {bar}: seed {', '.join(seeds)}")
    return "\n".join(lines)


def exit_code(figures: Mapping[str, object]) -> int:
    """Gives the status to end with: 1 where a seed missed a bar, which no noise excuses."""
    return int(any(figures["missed"].values()))


def run(seed: int) -> dict[str, object] | None:
    with tempfile.TemporaryDirectory(prefix="calidrift-bench-") as folder:
        ended = subprocess.run(
            [
                str(Path(sys.executable).with_name("calidrift")),
                "demo",
                "--seed",
                str(seed),
                "--workdir",
                folder,
                "--json",
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    return json.loads(ended.stdout) if ended.returncode == 0 else None


def row(d: dict[str, object]) -> str:
    coverage = f"{percent(d['request_coverage_before'])} -> {percent(d['request_coverage_after'])}"
    ratio = d["latency_ratio_int8_to_fp32"]
    return (
        f"{d['seed']:>4} {percent(d['fp32_accuracy']):>6} {percent(d['stale_int8_accuracy']):>6} "
        f"{percent(d['recalibrated_int8_accuracy']):>6} "
        f"{percent(d['sketch_only_int8_accuracy']):>6} "
        f"{percent(d['fp32_worst_segment_accuracy']):>10} "
        f"{percent(d['stale_worst_segment_accuracy']):>6} {coverage:>13} "
        f"{d['observed_until_alarm']:>9} {d['requests_until_alarm']:>6} "
        f"{percent(d['overhead_ratio']):>7} {'-' if ratio is None else f'{ratio:.2f}':>9} "
        f"{d['size_ratio']:>5.2f} {d['wall_seconds']:>4.0f}  {d['promoted_candidate']}"
    )


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    sys.exit(exit_code(main("--quick" in sys.argv)))
