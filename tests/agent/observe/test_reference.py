"""How a reference takes the inputs of a served model."""

import pytest
import torch
from torch import nn

from calidrift_agent._observe import ObservedCall, ReferenceModel, RequestContext
from calidrift_agent._taps import Ledger


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x, scale):
        return self.fc(x) * scale


@pytest.fixture
def model():
    return Scaled().eval()


def compared(model, *args, **kwargs):
    """Compare the model with itself, on a call that carries these inputs."""
    x, scale = torch.arange(6.0).reshape(2, 3), torch.full((2, 1), 2.0)
    inputs = {"x": x, "scale": scale}
    call = ObservedCall(rows=2, unit=1, context=RequestContext(), time_ns=0, copied=2)
    call.args = tuple(inputs[name] for name in args)
    call.kwargs = {name: inputs[of] for name, of in kwargs.items()}
    call.output = model(x, scale)[1:]
    ledger = Ledger("net", lambda: None)
    ReferenceModel(model).compare(call, ledger)
    return call.comparison, int(ledger.take()[0].sum())


def test_inputs_by_place_and_by_name(model):
    for comparison, errors in (
        compared(model, "x", "scale"),
        compared(model, "x", scale="scale"),
        compared(model, scale="scale", x="x"),
    ):
        assert comparison.noise < 1e-12 and not errors


def test_inputs_of_a_session_have_names_of_their_own(model):
    comparison, errors = compared(model, images="x", factor="scale")
    assert comparison.noise < 1e-12 and not errors
    comparison, errors = compared(model, factor="scale", images="x")
    assert comparison is None and errors == 1


def test_a_call_without_copies_is_passed_over(model):
    call = ObservedCall(rows=1, unit=0, context=RequestContext(), time_ns=0)
    call.output = torch.ones(1, 2)
    reference = ReferenceModel(model)
    reference.compare(call, Ledger("net", lambda: None))
    assert call.comparison is None
    assert reference.given_up is None
    assert reference.observes is False
