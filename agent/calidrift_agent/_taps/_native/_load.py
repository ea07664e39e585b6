"""Finding the built file, and trusting it only if it works here."""

import importlib
from types import ModuleType
from typing import Final

import numpy as np
import torch

from calidrift_agent._environment import native_allowed
from calidrift_agent._sketch import CELLS, packed_table
from calidrift_agent._taps._stride import LEAST, SAMPLE_LIMIT, SHARE, WHOLE_LIMIT
from calidrift_agent._vocabulary import COUNT_COLUMNS, VALUE_COLUMNS, CountColumn, ValueColumn

PROTOCOL: Final = 3
"""What this version of the package expects of the built file; another one is left alone."""
_COLUMNS: Final = (
    COUNT_COLUMNS,
    VALUE_COLUMNS,
    CountColumn.ROWS,
    CountColumn.ELEMENTS,
    CountColumn.NAN,
    CountColumn.INF,
    CountColumn.CLIP_ELEMENTS,
    CountColumn.CLIP_LOW,
    CountColumn.CLIP_HIGH,
    CountColumn.UNITS,
    CountColumn.EXCEEDANCES,
    CountColumn.RATIO_FIRST,
    CountColumn.UNITS_MEASURED,
    CountColumn.UNITS_NOT_FINITE,
    ValueColumn.LOWEST,
    ValueColumn.HIGHEST,
    ValueColumn.CLIPPED_ENERGY,
    ValueColumn.ENERGY,
    ValueColumn.RATIO_SUM,
    ValueColumn.UNIT_HIGHEST,
)
"""In the order of `Columns` in `strip.h`."""


def load() -> ModuleType | None:
    """Return the built module, ready for use; None where there is none, or none that works."""
    if not native_allowed():
        return None
    try:
        module = importlib.import_module("calidrift_agent._taps._native._tap")
        if module.PROTOCOL != PROTOCOL:
            return None
        table = packed_table().astype(np.uint32)
        plan = (SAMPLE_LIMIT, LEAST, SHARE, WHOLE_LIMIT, CELLS)
        module.setup(torch.Tensor, table, plan, _COLUMNS)
        return module if _works(module) else None
    except Exception:
        # A file of another machine, or a torch whose tensors cannot be read this way.
        return None


def _works(module: ModuleType) -> bool:
    """Whether it reads a tensor as torch does, on this machine and with this torch."""
    values = torch.tensor([[3.0, -4.0], [1.0, 2.0]])
    strip = module.Strip(np.array([[1.0, -1.0, 0.0, 0.0]]))
    strip.begin(2, 1, 0)
    if not strip.take(0, values):
        return False
    extremes = np.frombuffer(strip.figures()[2]).reshape(3, 2)
    return extremes.tolist() == [[3.0, 2.0], [-4.0, 1.0], [0.0, 0.0]]


NATIVE: Final = load()
"""The built module, or None."""
