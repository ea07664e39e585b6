"""Runs the benchmarks and prints paired ratios with their spread; `--json FILE` keeps them.

    python tests/benchmarks/run.py [--quick] [--json FILE] [NAME ...]

Names: unsampled, sampled_pass, drain, state_file, demo_seeds. Without names, all of them.
"""

import argparse
import importlib
import json
import os
import platform
import time
from pathlib import Path

NAMES = ("unsampled", "sampled_pass", "drain", "state_file", "demo_seeds")


def main() -> None:
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
    for name in given.names or NAMES:
        start = time.perf_counter()
        figures[name] = importlib.import_module(name).main(given.quick)
        print(f"  ({name}: {time.perf_counter() - start:.0f} s)\n")
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2, default=float) + "\n")


if __name__ == "__main__":
    main()
