"""Assess: what traffic does to the calibrated ranges, and whether that is more than bad luck.

The proof behind the alarm, what it needs and what it cannot see: `README.md` in this folder.
"""

from calidrift_analyzer.assess._assess import assess
from calidrift_analyzer.assess._canary import CANARY_RISK, canary_units, next_canary_look
from calidrift_analyzer.assess._evidence import (
    exceedances_to_alarm,
    log_evidence,
    smallest_detectable,
    units_to_alarm,
)
from calidrift_analyzer.assess._intervals import interval, lower_bound
from calidrift_analyzer.assess._judged import judged
from calidrift_analyzer.assess._landmarks import landmarks
from calidrift_analyzer.assess._rules import HARM_DB, LEARNING_FLOOR, AssessRules
from calidrift_analyzer.assess._stored import assess_stored

__all__ = [
    "CANARY_RISK",
    "HARM_DB",
    "LEARNING_FLOOR",
    "AssessRules",
    "assess",
    "assess_stored",
    "canary_units",
    "exceedances_to_alarm",
    "interval",
    "judged",
    "landmarks",
    "log_evidence",
    "lower_bound",
    "next_canary_look",
    "smallest_detectable",
    "units_to_alarm",
]
