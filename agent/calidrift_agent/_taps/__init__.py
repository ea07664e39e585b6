"""What is done with one observed tensor, and how the readings of a call become counts."""

from calidrift_agent._taps._fold import CallFacts, Folder, RowMaxima
from calidrift_agent._taps._forward import (
    class_forward,
    copied_forward,
    hides_its_instance,
    plain_forward,
)
from calidrift_agent._taps._function_modes import function_modes, put_modes, take_modes
from calidrift_agent._taps._harvest import Harvest
from calidrift_agent._taps._inputs import copy_rows, named_tensors, repeat_row, rows_of
from calidrift_agent._taps._ledger import CONSECUTIVE_LIMIT, Ledger
from calidrift_agent._taps._measure import Extremes, extremes_of, is_observable
from calidrift_agent._taps._memory import PAGE_ELEMENTS, CopyKeeper, Shelf, ShelfPool
from calidrift_agent._taps._reading import Reading, SeenColumn
from calidrift_agent._taps._recorder import Recorder, reseed
from calidrift_agent._taps._stride import SAMPLE_LIMIT, WHOLE_LIMIT, SamplePlan, sample_plan
from calidrift_agent._taps._table import PointTable
from calidrift_agent._taps._tap import Tap, arm, disarm

__all__ = [
    "CONSECUTIVE_LIMIT",
    "PAGE_ELEMENTS",
    "SAMPLE_LIMIT",
    "WHOLE_LIMIT",
    "CallFacts",
    "CopyKeeper",
    "Extremes",
    "Folder",
    "Harvest",
    "Ledger",
    "PointTable",
    "Reading",
    "Recorder",
    "RowMaxima",
    "SamplePlan",
    "SeenColumn",
    "Shelf",
    "ShelfPool",
    "Tap",
    "arm",
    "class_forward",
    "copied_forward",
    "copy_rows",
    "disarm",
    "extremes_of",
    "function_modes",
    "hides_its_instance",
    "is_observable",
    "named_tensors",
    "plain_forward",
    "put_modes",
    "repeat_row",
    "reseed",
    "rows_of",
    "sample_plan",
    "take_modes",
]
