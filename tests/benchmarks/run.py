"""Runs the benchmarks and prints paired ratios with their spread; `--json FILE` keeps them.

    python tests/benchmarks/run.py [--quick] [--json FILE] [NAME ...]

Names: unsampled, sampled_pass, drain, state_file, shadow, server, budget, store, sidecar,
service, demo_seeds. Without names, all of them. The end is a table of the bars; with a missed one
the status is 1.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path

from bars import judge

NAMES = (
    "unsampled",
    "sampled_pass",
    "drain",
    "state_file",
    "shadow",
    "server",
    "budget",
    "store",
    "sidecar",
    "service",
    "demo_seeds",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    given = parser.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    figures: dict[str, object] = {}
    status = 0
    for name in given.names or NAMES:
        start = time.perf_counter()
        module = importlib.import_module(name)
        figures[name] = module.main(given.quick)
        # Only a benchmark whose bars no noise excuses has this.
        status = max(status, getattr(module, "exit_code", lambda _: 0)(figures[name]))
        print(f"  ({name}: {time.perf_counter() - start:.0f} s)\n")
    missed = judge(figures)
    # A few rounds tell nothing about time.
    status = max(status, int(missed > 0 and not given.quick))
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2, default=float) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
