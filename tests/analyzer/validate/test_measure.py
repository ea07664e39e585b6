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
from calidrift_analyzer.validate._statistics import coverage_lower_bound


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
        (
            measured(correct=[1, 1], groups=[4, 5]),
            measured(correct=[1, 1], groups=[5, 4]),
            "other groups",
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


def exceeded(code, graph, profile, splits, seed=0):
    return uncovered_units(code, graph, profile, splits, np.random.default_rng(seed)).exceeded


def test_a_unit_is_uncovered_where_it_passes_the_observed_bound_not_the_clip_range(linear):
    rows = torch.tensor([[0.0, 1.0], [0.0, -1.1], [2.0, 0.0], [0.5, 0.5]])

    found = exceeded(over(rows[:3], rows[3:]), linear, profile(1.0), [Split.GATE])

    assert found["0:input"].tolist() == [False, True, True, False]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_unit_that_is_not_finite_is_never_covered(linear, value):
    rows = torch.tensor([[0.1, value], [0.1, 0.1]])

    found = exceeded(over(rows), linear, profile(1.0), [Split.GATE])

    assert found["0:input"].tolist() == [True, False]


def test_without_a_bound_nothing_is_covered(linear):
    found = exceeded(over(torch.zeros(3, 2)), linear, profile(None), [Split.GATE])

    assert found["0:input"].tolist() == [True] * 3


def test_every_split_counts(linear):
    rows = {Split.GATE: torch.zeros(3, 2), Split.REPORT: torch.full((2, 2), 9.0)}

    def evaluate(model, split):
        model(rows[split])
        return Evaluation()

    found = exceeded(Code(evaluate), linear, profile(1.0), [Split.GATE, Split.REPORT])

    assert found["0:input"].tolist() == [False] * 3 + [True] * 2


def test_a_call_without_rows_is_an_error(linear):
    def evaluate(model, split):
        model(3)

    with pytest.raises(ContractError, match="without a tensor that has rows"):
        exceeded(Code(evaluate), linear, profile(1.0), [Split.GATE])


def views(pictures, uncovered, copies=4):
    """Every picture `copies` times in a row; all views of the last ones leave the bound."""
    loud = torch.arange(pictures) >= pictures - uncovered
    return torch.where(loud, 2.0, 0.5).repeat_interleave(copies)[:, None].expand(-1, 2).clone()


def test_views_of_one_picture_are_one_unit(linear):
    rows = views(pictures=50, uncovered=3)
    groups = np.repeat(np.arange(50), 4)

    alone = uncovered_units(over(rows), linear, profile(1.0), [Split.GATE], rng(0))
    grouped = uncovered_units(over(rows, groups=groups), linear, profile(1.0), [Split.GATE], rng(0))

    assert (alone.rows, alone.exceeded["0:input"].sum()) == (200, 12)
    assert grouped.rows == 200
    assert grouped.exceeded["0:input"].shape == (50,)
    assert grouped.exceeded["0:input"].sum() == 3


def rng(seed):
    return np.random.default_rng(seed)


def test_the_row_of_a_group_is_drawn_at_random_and_not_the_first(linear):
    """One of the four views of every picture is outside: a quarter of the requests."""
    rows = torch.tensor([2.0, 0.5, 0.5, 0.5]).repeat(300)[:, None].expand(-1, 2).clone()
    groups = np.repeat(np.arange(300), 4)

    code = over(rows, groups=groups.tolist())
    found = exceeded(code, linear, profile(1.0), [Split.GATE])["0:input"]

    assert 75 - 4 * 7.5 < found.sum() < 75 + 4 * 7.5
    again = exceeded(code, linear, profile(1.0), [Split.GATE])["0:input"]
    assert np.array_equal(found, again)


def test_a_group_of_one_split_is_not_that_of_another(linear):
    code = over(torch.zeros(2, 2), groups=["a", "a"])

    found = exceeded(code, linear, profile(1.0), [Split.GATE, Split.REPORT])

    assert found["0:input"].shape == (2,)


def test_groups_must_be_those_of_the_rows(linear):
    code = over(torch.zeros(3, 2), groups=["a", "b"])

    with pytest.raises(ContractError, match=r"groups for 2 samples .* the model with 3 rows"):
        exceeded(code, linear, profile(1.0), [Split.GATE])


def bound_holds(grouped):
    """How often the lower bound is below the true coverage of views that leave together."""
    draw = np.random.default_rng(3)
    code = nn.Sequential(nn.Linear(2, 2))
    graph = PreparedModel(code, (torch.zeros(2, 2),)).convert({"0:input": Range(-0.1, 0.1)})
    held, trials, truth = 0, 60, 0.9
    for _ in range(trials):
        rows = views(60, int((draw.random(60) > truth).sum()))
        groups = np.repeat(np.arange(60), 4) if grouped else None
        found = exceeded(over(rows, groups=groups), graph, profile(1.0), [Split.GATE])["0:input"]
        held += coverage_lower_bound(int((~found).sum()), found.size) <= truth
    return held / trials


def test_the_coverage_bound_holds_for_groups_and_would_not_without_them():
    assert bound_holds(grouped=True) >= 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / 60)
    assert bound_holds(grouped=False) < 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / 60)
