"""Following a registry: a promoted version reaches the serving process between two requests."""

from calidrift_agent._follow._follower import Follower, follow
from calidrift_agent._follow._kernels import count_int8_kernels, planned_int8_kernels
from calidrift_agent._follow._options import FollowOptions
from calidrift_agent._follow._outcome import FollowOutcome
from calidrift_agent._follow._status import FollowStatus

__all__ = [
    "FollowOptions",
    "FollowOutcome",
    "FollowStatus",
    "Follower",
    "count_int8_kernels",
    "follow",
    "planned_int8_kernels",
]
