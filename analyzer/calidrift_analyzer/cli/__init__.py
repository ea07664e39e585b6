"""The analyzer's commands, which join `calidrift` by the entry point group `calidrift.commands`.

A command is one module `_<name>.py` with one function of the same name:

```python
def status(
    invocation: Invocation,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
) -> None:
    \"\"\"The help of the command, first line first.\"\"\"
    config = load_config(invocation.config)
    output = Output(invocation)
    ...
    output.table(...)  # people
    output.document({...})  # --json
```

It gets `--config`, `--json` and `--debug` by joining. It raises: `RefusedError` ends with status 1,
every other `CalidriftError` with 2, anything else with 3. Nothing here imports what the extra
brings: `calidrift --help` works without it.
"""

from collections.abc import Callable
from importlib import import_module

from calidrift_agent._command_line import Command, CommandTable

__all__ = ["register"]

_PACKAGES = (
    "apscheduler",
    "duckdb",
    "fastapi",
    "fsspec",
    "grafana_api",
    "jinja2",
    "matplotlib",
    "pyarrow",
    "pydantic",
    "pydantic_settings",
    "rich",
    "scipy",
    "sklearn",
    "tenacity",
    "torchao",
    "uvicorn",
)

_SUMMARIES = {
    "demo": "Show the whole loop on real images: train, drift, detect, recalibrate, promote.",
    "demo-stack": "Show the loop with real servers: Prometheus, Alertmanager, `calidrift serve`.",
    "calibrate": "Measure the calibration set of a model and save its profile.",
    "reference": "Learn the reference of a model from random units of production, or show it.",
    "status": "Say for each model and point whether it drifted, worst point first.",
    "coverage": "Say how much of the traffic the calibration covers.",
    "mute": "Do not let an alarm decide anything for a while, and say why.",
    "unmute": "End a mute before its time.",
    "mutes": "List what is muted, until when, why, and by whom.",
    "mark": "Mark a moment that may explain a change: a deployment, a new client, a new sensor.",
    "marks": "List the marked moments, promotions and rollbacks among them.",
    "select": "Choose the captured requests that close the gap in the calibration set.",
    "recalibrate": "Make candidates with new ranges.",
    "validate": "Measure the candidates against FP32 and the gate.",
    "promote": "Put a validated candidate into service.",
    "publish": "Send the version that serves to its registry_url, and verify it there.",
    "rollback": "Put the version before the current one back into service.",
    "store": "Look after the database: retain, check, merge, compact.",
    "serve": "Run everything continuously: collect, assess, answer alerts, repair, serve the API.",
    "jobs": "List, start, approve and cancel recalibrations of the service; freeze models.",
    "dashboards": "Write dashboards and alerts for Grafana and Prometheus, or push them.",
}


def register(table: CommandTable) -> None:
    """Add the analyzer's commands to the table of `calidrift`.

    Args:
        table: The table of this run.
    """
    for name, summary in _SUMMARIES.items():
        table.add(
            Command(
                name=name,
                summary=summary,
                load=_loader(name),
                extra="analyzer",
                packages=_PACKAGES,
            )
        )


def _loader(name: str) -> Callable[[], Callable[..., None]]:
    def load() -> Callable[..., None]:
        word = name.replace("-", "_")
        function: Callable[..., None] = getattr(import_module(f"{__name__}._{word}"), word)
        return function

    return load
