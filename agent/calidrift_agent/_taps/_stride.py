"""Which elements of a large tensor are looked at: an odd stride, coprime to every dimension.

A stride that shares a factor with a dimension sees a fixed part of it for ever: a stride of 48 on
a tensor of 8 x 64 x 384 sees 8 of its 384 channels. A stride coprime to every dimension walks
through all positions of each of them, and a random phase makes every element equally likely.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import gcd, prod
from typing import Final, final

SAMPLE_LIMIT: Final = 4096
"""Most elements of one tensor that are sampled; smaller tensors are taken whole."""
WHOLE_LIMIT: Final = 1 << 16
"""Tensors up to this many elements are copied whole in the request and reduced in the drain."""
LEAST: Final = 1024
"""Elements that are sampled at least of a tensor that is not taken whole."""
SHARE: Final = 8
"""One element in so many is sampled, within these limits: values of one tensor say much the same,
and bucketing them is what the drain mostly does."""


@final
@dataclass(frozen=True, slots=True)
class SamplePlan:
    """How the elements of one shape are sampled.

    Elements `phase, phase + stride, ...` (`count` of them) in memory order are taken, with a
    `phase` in `[0, stride)`; each stands for `weight` elements.

    Attributes:
        stride: 1, or odd and coprime to every dimension.
        count: Sampled elements, at most `SAMPLE_LIMIT`; valid for every phase.
        weight: `round(numel / count)`, at least 1.
    """

    stride: int
    count: int
    weight: int


@lru_cache(maxsize=4096)
def sample_plan(shape: tuple[int, ...]) -> SamplePlan:
    """Return the plan of a shape with at least one element.

    Up to 4096 elements: all. Above: an eighth of them, but 1024 at least and 4096 at most.

    Cost: 100 ns for a shape that was seen before.

    Example:
        >>> sample_plan((8, 64, 384))
        SamplePlan(stride=49, count=4012, weight=49)
        >>> sample_plan((3, 5))
        SamplePlan(stride=1, count=15, weight=1)
    """
    numel = prod(shape)
    if numel <= SAMPLE_LIMIT:
        return SamplePlan(1, numel, 1)
    wanted = min(SAMPLE_LIMIT, max(LEAST, numel // SHARE))
    stride = -(-numel // wanted) | 1
    while any(gcd(stride, size) > 1 for size in shape):
        stride += 2
    count = max(1, numel // stride)
    return SamplePlan(stride, count, max(1, round(numel / count)))
