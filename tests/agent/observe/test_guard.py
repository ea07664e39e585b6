"""What a guarded run may not do, and that it did not come to it."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from calidrift_agent._observe._guard import SideEffectError, SideEffectGuard


def run(forward, *protected):
    with torch.no_grad(), SideEffectGuard(protected):
        return forward()


RNN = nn.LSTM(3, 3, num_layers=2, dropout=0.5)
DATA = torch.arange(8.0).reshape(4, 2)


@pytest.mark.parametrize(
    "forward",
    [
        lambda: torch.rand(2),
        lambda: torch.ones(2).normal_(),
        lambda: F.dropout(torch.ones(4), 0.5, training=True),
        lambda: F.rrelu(torch.ones(4), training=True),
        lambda: torch.bernoulli(torch.full((2,), 0.5)),
        lambda: torch.multinomial(torch.ones(3), 1),
        lambda: F.gumbel_softmax(torch.ones(2, 3)),
        lambda: RNN(torch.ones(1, 2, 3)),
        lambda: F.scaled_dot_product_attention(*torch.ones(3, 1, 1, 2, 2), dropout_p=0.5),
    ],
)
def test_no_random_number_is_drawn(forward):
    before = torch.get_rng_state()
    with pytest.raises(SideEffectError, match="draws random numbers"):
        run(forward)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "write",
    [
        lambda t: t.add_(1.0),
        lambda t: t[0].mul_(2.0),  # through a view
        lambda t: t.detach().view(-1).zero_(),
        lambda t: torch.add(t, 1.0, out=t),
        lambda t: torch._foreach_add_([t], 1.0),
        lambda t: F.batch_norm(DATA, t[0], t[1], training=True),
        lambda t: t.copy_(torch.zeros(2, 2)),
        lambda t: t.index_put_((torch.tensor([0]),), torch.zeros(2)),
    ],
)
def test_nothing_is_written_to_protected_memory(write):
    state = torch.arange(4.0).reshape(2, 2)
    before = state.clone()
    with pytest.raises(SideEffectError, match="writes to its own state"):
        run(lambda: write(state), state)
    assert torch.equal(state, before)
    write(state)  # without the guard it would have happened
    assert not torch.equal(state, before)


def test_everything_else_runs_as_ever():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True).eval()
    conv = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.ReLU(inplace=True)).eval()
    x, y = torch.randn(2, 4, 8), torch.randn(2, 2, 5)
    with torch.no_grad():
        expected = layer(x), conv(y)
    found = run(lambda: (layer(x), conv(y)), *layer.parameters(), *conv.parameters())
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_other_threads_are_not_guarded():
    drawn, go, done = [], threading.Event(), threading.Event()

    def host():
        go.wait(10)
        drawn.append(torch.rand(1))
        done.set()

    thread = threading.Thread(target=host)
    thread.start()
    with SideEffectGuard([]):
        go.set()
        assert done.wait(10)
    thread.join()
    assert len(drawn) == 1
