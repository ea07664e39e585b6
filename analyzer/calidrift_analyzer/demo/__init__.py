"""The demo: the whole loop on real images, with everything measured in the same run.

The child processes of the demo import this package for its model contract alone; everything else
is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calidrift_analyzer.demo._contract import DigitsContract
    from calidrift_analyzer.demo._result import DemoOptions, DemoResult
    from calidrift_analyzer.demo._run import Narrator, run_demo

__all__ = ["DemoOptions", "DemoResult", "DigitsContract", "Narrator", "run_demo"]

_HOMES = {
    "DemoOptions": "_result",
    "DemoResult": "_result",
    "DigitsContract": "_contract",
    "Narrator": "_run",
    "run_demo": "_run",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
