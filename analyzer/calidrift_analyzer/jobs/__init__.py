"""Jobs: recalibration as a state machine in the store, led on by one worker.

queued -> selecting -> recalibrating -> validating -> awaiting_approval -> promoted, with canary
before the last one where the model has canaries, or at any place refused, failed or cancelled. A
re-validation of what serves goes queued -> validating -> confirmed or refused.
"""

from calidrift_analyzer.jobs._actions import (
    approve,
    cancel,
    freeze,
    require_job,
    roll_back,
    take_back,
    tell_again,
)
from calidrift_analyzer.jobs._canary import trial_of
from calidrift_analyzer.jobs._database import Database, DirectDatabase
from calidrift_analyzer.jobs._noticed import notice_move
from calidrift_analyzer.jobs._orders import (
    Answer,
    Order,
    audit_row,
    frozen_by,
    order_job,
    resolve_trigger,
)
from calidrift_analyzer.jobs._remarks import (
    known_points,
    mark,
    matching_points,
    mute,
    unmute,
)
from calidrift_analyzer.jobs._stages import RealStages, job_folder
from calidrift_analyzer.jobs._work import StageResult, Stages, StageWork
from calidrift_analyzer.jobs._worker import LiveProgress, Worker

__all__ = [
    "Answer",
    "Database",
    "DirectDatabase",
    "LiveProgress",
    "Order",
    "RealStages",
    "StageResult",
    "StageWork",
    "Stages",
    "Worker",
    "approve",
    "audit_row",
    "cancel",
    "freeze",
    "frozen_by",
    "job_folder",
    "known_points",
    "mark",
    "matching_points",
    "mute",
    "notice_move",
    "order_job",
    "require_job",
    "resolve_trigger",
    "roll_back",
    "take_back",
    "tell_again",
    "trial_of",
    "unmute",
]
