"""What is kept while user code evaluates a model."""

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_agent._profile import (
    CalibrationProfile,
    Fingerprint,
    ObservedBound,
    PointProfile,
    utc_now,
)
from calidrift_agent._vocabulary import Instrument
from calidrift_analyzer.backend import PreparedModel
from calidrift_analyzer.contract import Evaluation, Split
from calidrift_analyzer.errors import ContractError
from calidrift_analyzer.ranges import Range
from calidrift_analyzer.validate import _measure
from calidrift_analyzer.validate._measure import (
    Measured,
    measure,
    require_comparable,
    uncovered_units,
)


class Code:
    """User code whose `evaluate` is given here."""

    def __init__(self, evaluate):
        self.evaluate = evaluate


def over(*batches, **answer):
    def evaluate(model, split):
        for batch in batches:
            model(batch)
        return Evaluation(**answer)

    return Code(evaluate)


def test_outputs_of_all_calls_are_kept_in_order():
    code = over(torch.zeros(2, 3), torch.ones(1, 3), correct=[1, 0, 1])

    measured = measure(code, nn.Identity(), Split.GATE)

    assert measured.outputs.tolist() == [[0.0] * 3, [0.0] * 3, [1.0] * 3]
    assert measured.scores.tolist() == [1.0, 0.0, 1.0]


def test_outputs_of_different_lengths_are_compared_number_by_number():
    measured = measure(over(torch.zeros(2, 3), torch.ones(1, 4)), nn.Identity(), Split.GATE)

    assert measured.outputs.shape == (10,)


def test_the_model_can_be_asked_for_its_device_and_put_into_eval_mode():
    def evaluate(model, split):
        assert not model.training
        model.eval()
        model(torch.zeros(1, 2).to(next(model.parameters()).device))
        return Evaluation()

    graph = PreparedModel(nn.Sequential(nn.Linear(2, 2)), (torch.zeros(2, 2),)).convert()

    assert measure(Code(evaluate), graph, Split.GATE).outputs.shape == (1, 2)


def test_an_evaluation_that_never_runs_the_model_is_an_error():
    with pytest.raises(ContractError, match="never called the model on the split report"):
        measure(over(correct=[True]), nn.Identity(), Split.REPORT)


def test_outputs_that_would_not_fit_into_memory_are_an_error(monkeypatch):
    monkeypatch.setattr(_measure, "_LARGEST_OUTPUT", 5)

    with pytest.raises(ContractError, match="evaluate on fewer samples"):
        measure(over(torch.zeros(2, 3)), nn.Identity(), Split.GATE)


def measured(rows=2, **answer):
    return Measured(Evaluation(**answer), np.zeros((rows, 3)))


@pytest.mark.parametrize(
    ("one", "two", "told"),
    [
        (measured(correct=[1, 1]), measured(), "labels for one model and none for another"),
        (measured(correct=[1, 1]), measured(correct=[1]), "2 samples for one model and 1"),
        (
            measured(correct=[1, 1], segments=["a", "b"]),
            measured(correct=[1, 1], segments=["b", "a"]),
            "other segments",
        ),
        (measured(2), measured(3), r"shape \(2, 3\) from one model and \(3, 3\)"),
    ],
)
def test_models_that_saw_other_samples_are_not_compared(one, two, told):
    with pytest.raises(ContractError, match=told):
        require_comparable(one, two, Split.GATE)
    require_comparable(one, one, Split.GATE)


@pytest.fixture(scope="module")
def linear():
    """A graph whose only point sees its input as it is."""
    prepared = PreparedModel(nn.Sequential(nn.Linear(2, 2)), (torch.zeros(2, 2),))
    return prepared.convert({"0:input": Range(-0.1, 0.1)})


def profile(bound):
    observed = None if bound is None else ObservedBound.from_absmax([bound])
    return CalibrationProfile(
        points={"0:input": PointProfile("0:input", observed_bound=observed)},
        units=1,
        instrument=Instrument.RANGE,
        fingerprint=Fingerprint(),
        created=utc_now(),
    )


def test_a_unit_is_uncovered_where_it_passes_the_observed_bound_not_the_clip_range(linear):
    rows = torch.tensor([[0.0, 1.0], [0.0, -1.1], [2.0, 0.0], [0.5, 0.5]])

    found = uncovered_units(over(rows[:3], rows[3:]), linear, profile(1.0), [Split.GATE])

    assert found["0:input"].tolist() == [False, True, True, False]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_unit_that_is_not_finite_is_never_covered(linear, value):
    rows = torch.tensor([[0.1, value], [0.1, 0.1]])

    found = uncovered_units(over(rows), linear, profile(1.0), [Split.GATE])

    assert found["0:input"].tolist() == [True, False]


def test_without_a_bound_nothing_is_covered(linear):
    found = uncovered_units(over(torch.zeros(3, 2)), linear, profile(None), [Split.GATE])

    assert found["0:input"].tolist() == [True] * 3


def test_every_split_counts(linear):
    rows = {Split.GATE: torch.zeros(3, 2), Split.REPORT: torch.full((2, 2), 9.0)}

    def evaluate(model, split):
        model(rows[split])
        return Evaluation()

    found = uncovered_units(Code(evaluate), linear, profile(1.0), [Split.GATE, Split.REPORT])

    assert found["0:input"].tolist() == [False] * 3 + [True] * 2


def test_a_call_without_rows_is_an_error(linear):
    def evaluate(model, split):
        model(3)

    with pytest.raises(ContractError, match="without a tensor that has rows"):
        uncovered_units(Code(evaluate), linear, profile(1.0), [Split.GATE])
