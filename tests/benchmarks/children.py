"""Runs a benchmark in a process of its own, and brings its figures back."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def measure_apart(module: str, *words: str, **environment: str) -> dict[str, Any]:
    """Gives what `module.py --json FILE WORDS` wrote; what it prints goes through."""
    script = Path(__file__).with_name(f"{module}.py")
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        subprocess.run(
            [sys.executable, str(script), "--json", str(figures), *words],
            env={**os.environ, **environment},
            check=True,
        )
        return json.loads(figures.read_text())


def leave(figures: object, words: list[str]) -> None:
    """Writes the figures where `measure_apart` looks for them."""
    target = Path(words[words.index("--json") + 1])
    target.write_text(json.dumps(figures, default=float))
