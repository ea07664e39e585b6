import pytest
import torch

from calidrift_agent._observe._shadow import fixed_batches, why_not_replay
from calidrift_agent._observe._side_effects import draws_random_numbers, views_of, written

aten = torch.ops.aten


@pytest.mark.parametrize(
    ("operation", "args", "kwargs", "draws"),
    [
        (aten.rand_like.default, ("x",), {}, True),
        (aten.bernoulli.default, ("x",), {}, True),
        (aten.dropout.default, ("x", 0.5, True), {}, True),
        (aten.dropout.default, ("x", 0.5, False), {}, False),
        (aten.dropout.default, ("x", 0.0, True), {}, False),
        (aten.scaled_dot_product_attention.default, ("q", "k", "v"), {}, False),
        (aten.scaled_dot_product_attention.default, ("q", "k", "v", None, 0.1), {}, True),
        (aten.scaled_dot_product_attention.default, ("q", "k", "v"), {"dropout_p": 0.1}, True),
        (aten.rrelu.default, ("x",), {}, False),
        (aten.add.Tensor, ("x", "y"), {}, False),
        (len, ("x",), {}, False),
    ],
)
def test_random_numbers(operation, args, kwargs, draws):
    assert draws_random_numbers(operation, args, kwargs) is draws


@pytest.mark.parametrize(
    ("operation", "args", "found"),
    [
        (aten.add_.Tensor, ("x", "y"), ["x"]),
        (aten.copy_.default, ("x", "y"), ["x"]),
        (aten.add.Tensor, ("x", "y"), []),
        (aten.view.default, ("x", [1]), []),
        (aten.batch_norm.default, ("x", "w", "b", "m", "v", True, 0.1, 1e-5, True), ["m", "v"]),
        (aten.batch_norm.default, ("x", "w", "b", "m", "v", False, 0.1, 1e-5, True), []),
        (aten.batch_norm.default, ("x", "w", "b", None, None, True, 0.1, 1e-5, True), []),
        (len, ("x",), []),
    ],
)
def test_writes(operation, args, found):
    assert written(operation, args, {}) == found


def test_views():
    assert views_of(aten.view.default, ("x", [1]), {}) == ["x"]
    assert views_of(aten.add.Tensor, ("x", "y"), {}) == []
    assert views_of(len, ("x",), {}) == []


def exported(forward, buffers=True, **shapes):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("state", torch.zeros(4, 4))

        def forward(self, x):
            return forward(self, x)

    return torch.export.export(Model().eval(), (torch.randn(4, 4),), **shapes).module()


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda self, x: x + torch.rand_like(x), "random"),
        (lambda self, x: x + self.state.add_(1.0), "buffers"),
        (lambda self, x: (self.state[0].add_(1.0), x + self.state)[1], "buffers"),
        (lambda self, x: torch.nn.functional.dropout(x, 0.5, training=True), "random"),
        (lambda self, x: torch.nn.functional.dropout(x, 0.5, training=False) + self.state, None),
        (lambda self, x: x.clone().add_(1.0) + self.state, None),
    ],
)
def test_graphs_that_must_not_run_twice(forward, reason):
    found = why_not_replay(exported(forward))
    assert (found is None) if reason is None else (reason in found)


def test_batches_that_a_graph_fixes():
    plain = lambda self, x: x + self.state  # noqa: E731
    assert fixed_batches(exported(plain)) == {4}
    batch = torch.export.Dim("batch", min=2, max=8)
    free = exported(lambda self, x: x * 2.0, dynamic_shapes=({0: batch},))
    assert fixed_batches(free) == frozenset()
