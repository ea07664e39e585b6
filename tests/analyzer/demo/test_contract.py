"""The demo's contract gives what `calidrift.toml` promises."""

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_analyzer.demo import DigitsContract
from calidrift_analyzer.demo._contract import REQUEST_ROWS
from calidrift_analyzer.demo._data import LOW_LIGHT, PART_SIZES, Condition, Part, pictures


class Oracle(nn.Module):
    """Knows the label of every picture of a part; answers rows that it does not know with 0."""

    def __init__(self, part: Part, seed: int, wrong: Condition | None = None) -> None:
        super().__init__()
        seen = pictures(part, seed, tuple(Condition))
        self.calls: list[int] = []
        self._answers = {
            image.tobytes(): (label + (condition is wrong)) % 10
            for image, label, condition in zip(
                seen.images, seen.labels, seen.conditions, strict=True
            )
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(x))
        answers = [self._answers.get(row.numpy().tobytes(), 0) for row in x]
        return nn.functional.one_hot(torch.tensor(answers), 10).float()


def test_example_inputs_are_one_request() -> None:
    (example,) = DigitsContract(0).example_inputs()
    assert example.shape == (REQUEST_ROWS, 1, 8, 8)


def test_the_calibration_set_is_low_light_and_nothing_else() -> None:
    rows = torch.cat(list(DigitsContract(0).calibration()))
    assert len(rows) == PART_SIZES[Part.CALIBRATION]
    assert rows.max() == np.float32(LOW_LIGHT)


@pytest.mark.parametrize("split", ["select", "gate", "report"])
def test_evaluate_covers_every_condition_of_the_split(split: str) -> None:
    oracle = Oracle(Part(split), 3)
    evaluation = DigitsContract(3).evaluate(oracle, split)
    size = PART_SIZES[Part(split)]
    assert sum(oracle.calls) == 4 * size
    assert evaluation.metric == 1.0
    assert [evaluation.segments.count(condition) for condition in Condition] == [size] * 4
    seen = pictures(Part(split), 3, tuple(Condition))
    assert evaluation.groups == seen.sources.tolist(), "four views of one picture are one group"
    assert {evaluation.groups.count(group) for group in evaluation.groups} == {4}


def test_evaluate_assigns_mistakes_to_their_segment() -> None:
    evaluation = DigitsContract(3).evaluate(Oracle(Part.GATE, 3, Condition.NOISY), "gate")
    right = dict(zip(evaluation.segments, evaluation.correct, strict=True))
    assert evaluation.metric == 0.75
    assert right == {
        "original": True,
        "low-light": True,
        "high-contrast": True,
        "noisy": False,
    }


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="tomorrow"):
        DigitsContract(3).evaluate(nn.Identity(), "tomorrow")


def test_the_factory_gives_the_network_of_the_weights() -> None:
    model = DigitsContract(0).factory()
    assert model.eval()(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
