"""The demo's model contract: the four callables that `calidrift.toml` names."""

from collections.abc import Iterator
from typing import Final, final

import numpy as np
import torch
from torch import Tensor, nn

from calidrift_analyzer.contract import Evaluation
from calidrift_analyzer.demo._data import Condition, Part, Pictures, pictures
from calidrift_analyzer.demo._network import DigitNetwork

__all__ = ["REQUEST_ROWS", "DigitsContract", "tensor_of"]

REQUEST_ROWS: Final = 32
"""Pictures in one request of the demo's traffic."""

_BATCH_ROWS: Final = 64
_EVERY_CONDITION: Final = tuple(Condition)


def tensor_of(seen: Pictures) -> Tensor:
    """Pictures as the (rows, 1, 8, 8) float32 tensor that the network takes."""
    return torch.from_numpy(seen.images)


@final
class DigitsContract:
    """What the analyzer may run for the demo's model.

    Args:
        seed: The demo's seed; it decides which picture is in which split.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def factory(self) -> nn.Module:
        """Build the FP32 network; its weights are loaded from the contract's file."""
        return DigitNetwork()

    def example_inputs(self) -> tuple[Tensor]:
        """Give one request."""
        seen = pictures(Part.CALIBRATION, self._seed, (Condition.LOW_LIGHT,))
        return (tensor_of(seen)[:REQUEST_ROWS],)

    def calibration(self) -> Iterator[Tensor]:
        """Yield the calibration set: low light only, which is the demo's point."""
        seen = pictures(Part.CALIBRATION, self._seed, (Condition.LOW_LIGHT,))
        yield from tensor_of(seen).split(_BATCH_ROWS)  # type: ignore[no-untyped-call]

    def evaluate(self, model: nn.Module, split: str) -> Evaluation:
        """Classify every picture of a split under each of the four conditions.

        Args:
            model: FP32 or INT8, eager or compiled.
            split: `select`, `gate` or `report`.

        Returns:
            Which pictures were classified rightly, with the condition as segment. The four views
            of one picture are one group: they are not four independent requests.
        """
        seen = pictures(Part(split), self._seed, _EVERY_CONDITION)
        with torch.no_grad():
            guesses = [
                model(tensor_of(seen)[start : start + _BATCH_ROWS]).argmax(dim=1).numpy()
                for start in range(0, len(seen), _BATCH_ROWS)
            ]
        return Evaluation(
            correct=np.concatenate(guesses) == seen.labels,
            segments=[str(condition) for condition in seen.conditions],
            groups=seen.sources.tolist(),
        )
