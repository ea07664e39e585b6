"""The demo with the real servers: Prometheus, Alertmanager, `calidrift serve` and a service.

The serving process imports this package for its own module alone; everything else is loaded when
it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calidrift_analyzer.demo.stack._result import (
        Shortened,
        StackOptions,
        StackResult,
        StackStep,
    )
    from calidrift_analyzer.demo.stack._stack import run_stack

__all__ = ["Shortened", "StackOptions", "StackResult", "StackStep", "run_stack"]

_HOMES = {
    "Shortened": "_result",
    "StackOptions": "_result",
    "StackResult": "_result",
    "StackStep": "_result",
    "run_stack": "_stack",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
