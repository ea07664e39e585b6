"""Requests of the demo: pictures of one part, seen under one condition each."""

from collections.abc import Iterator, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from calidrift_analyzer.demo._contract import REQUEST_ROWS
from calidrift_analyzer.demo._data import Condition, Part, originals, see

__all__ = ["Traffic"]


@final
class Traffic:
    """An endless stream of requests; all of it follows from the seed.

    A request is a batch of pictures that one camera took, so all its rows share a condition.

    Args:
        seed: The demo's seed.
    """

    def __init__(self, seed: int) -> None:
        self._pictures = originals(Part.TRAFFIC, seed).images
        self._rng = np.random.default_rng([seed, 3])

    def requests(
        self, count: int, conditions: Sequence[Condition]
    ) -> Iterator[tuple[Condition, Tensor]]:
        """Draw requests.

        Args:
            count: How many.
            conditions: Each request has one of these, with equal probability.

        Yields:
            The condition and a (rows, 1, 8, 8) float32 tensor.
        """
        for _ in range(count):
            condition = conditions[int(self._rng.integers(len(conditions)))]
            chosen = self._rng.integers(len(self._pictures), size=REQUEST_ROWS)
            yield condition, torch.from_numpy(see(self._pictures[chosen], condition, self._rng))
