from collections import OrderedDict, UserDict, namedtuple

import pytest
import torch
from torch import nn

from calidrift_agent._calibrate import CalibrateOptions, calibrate
from calidrift_agent.errors import ConfigurationError

Pair = namedtuple("Pair", ["x", "scale"])


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x, scale=1.0):
        return self.fc(x * scale)


X = torch.tensor([[1.0, -2.0], [0.5, 0.25]])


@pytest.fixture
def model():
    return Scaled().eval()


@pytest.mark.parametrize(
    ("batch", "largest"),
    [
        (X, 2.0),
        ((X,), 2.0),
        ((X, 3.0), 6.0),
        (Pair(X, 4.0), 8.0),
        ({"x": X, "scale": 3.0}, 6.0),
        (OrderedDict(scale=3.0, x=X), 6.0),
        (UserDict(x=X), 2.0),
    ],
)
def test_tensors_tuples_and_mappings_are_inputs(model, batch, largest):
    profile = calibrate(model, [batch])
    assert profile.units == 2
    assert profile.points["fc:input"].observed_bound.value == largest


def test_batches_are_read_once_and_lazily(model):
    profile = calibrate(model, (X for _ in range(3)))
    assert profile.units == 6


def test_no_batches_are_refused(model):
    with pytest.raises(ConfigurationError, match="no calibration batches"):
        calibrate(model, [])
    spent = iter([X])
    next(spent)
    with pytest.raises(ConfigurationError, match="already read through"):
        calibrate(model, spent)


@pytest.mark.parametrize("batches", [X, {"x": X}, "text", b"bytes", 3, None])
def test_what_is_not_an_iterable_of_batches_is_refused(model, batches):
    with pytest.raises(ConfigurationError, match="put a single batch into a list"):
        calibrate(model, batches)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([X, torch.tensor([0, 1])], "batch 2 is a list.*often ends with labels"),
        (X.numpy(), "batch 2 is a ndarray, but must be a tensor, a tuple"),
        ("text", "batch 2 is a str"),
        (None, "batch 2 is a NoneType"),
        ({1: X}, "batch 2 is a mapping with keys that are not text"),
        ((3, "x"), "batch 2 holds no tensor"),
        (torch.tensor(1.0), "batch 2 holds no tensor with a dimension"),
        ((), "batch 2 holds no tensor"),
        (torch.zeros(0, 2), "batch 2 has no rows"),
        ({"x": torch.zeros(0, 2)}, "batch 2 has no rows"),
    ],
)
def test_unusable_batches_are_named_by_number(model, batch, message):
    with pytest.raises(ConfigurationError, match=message):
        calibrate(model, [X, batch])


def test_a_batch_that_the_model_refuses_is_named(model):
    with pytest.raises(RuntimeError) as caught:
        calibrate(model, [X, torch.zeros(2, 5)])
    assert "calibration batch 2" in caught.value.__notes__[0]


def test_fewer_units_than_the_rank_are_refused(model):
    with pytest.raises(ConfigurationError, match="hold 2 units"):
        calibrate(model, [X], options=CalibrateOptions(rank=3))


@pytest.mark.parametrize("rank", [0, 33])
def test_ranks_outside_the_kept_ones_are_refused(rank):
    with pytest.raises(ConfigurationError, match="only ranks 1 to 32"):
        CalibrateOptions(rank=rank)
