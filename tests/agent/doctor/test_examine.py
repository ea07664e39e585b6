import numpy as np
import pytest
import torch
from torch import nn

from calidrift_agent import calibrate
from calidrift_agent._doctor import Prescription, Request, Subject, examine
from calidrift_agent._vocabulary import Strategy
from calidrift_agent.errors import AttachError, ConfigurationError, ProfileMismatchError


class Forked(nn.Module):
    """One of two layers, by the size of the input."""

    def __init__(self):
        super().__init__()
        self.used = nn.Linear(4, 2)
        self.idle = nn.Linear(4, 2)

    def forward(self, x, *, other=False):
        return self.idle(x) if other else self.used(x)


def subject(model=None, *inputs, **kwargs) -> Subject:
    return Subject(model or Forked().eval(), (Request(inputs or (torch.ones(2, 4),), kwargs),))


def test_what_is_found():
    model = Forked().eval()
    found = examine(subject(model), Prescription(requests=6))
    assert found.report.observed_calls == 6
    assert found.report.never_fired == ("idle:input",)
    assert found.report.strategy is Strategy.INSTEAD
    assert found.report.cost.own_seconds > 0.0
    assert found.report.cost.copy_bytes > 0
    assert found.report.cost.file_bytes > 10_000
    assert 0.0 < found.ratio <= 1.0
    assert (found.errors, found.dropped, found.training) == ({}, {}, False)
    assert found.detection_requests is None
    assert "forward" not in vars(model)


def test_keyword_inputs_take_the_other_way():
    found = examine(subject(None, torch.ones(2, 4), other=True), Prescription(requests=4))
    assert found.report.never_fired == ("used:input",)


def test_every_request_has_its_turn():
    requests = (Request((torch.ones(1, 4),), {}), Request((torch.ones(1, 4),), {"other": True}))
    found = examine(Subject(Forked().eval(), requests), Prescription(requests=4))
    assert found.report.never_fired == ()


def test_with_a_profile_the_time_to_detect_is_known():
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    profile = calibrate(model, [torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))])
    found = examine(subject(model), Prescription(requests=5, traffic=10.0), profile)
    assert found.detection_requests > 100
    assert found.detection_seconds == pytest.approx(found.detection_requests / 10.0 / found.ratio)
    unknown = examine(subject(model), Prescription(requests=5), profile)
    assert unknown.detection_seconds is None
    with pytest.raises(ProfileMismatchError):
        examine(subject(), Prescription(), profile)


def test_training_mode_is_noticed():
    assert examine(subject(Forked().train()), Prescription(requests=4)).training


def test_a_function_is_examined_at_its_edges():
    found = examine(subject(lambda x: x * 2.0), Prescription(requests=4))
    assert found.report.strategy is Strategy.EDGES
    assert found.report.observed_calls == 4


def test_an_onnx_session_takes_its_feeds_by_name(tmp_path):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    helper = onnx.helper
    weights = onnx.numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones((2, 4), np.float32)}
    found = examine(Subject(session, (Request((), feeds),)), Prescription(requests=4))
    assert found.report.observed_calls == 4
    bare = Subject(session, (Request((None, feeds), {}),))
    assert examine(bare, Prescription(requests=4)).report.observed_calls == 4


def test_a_model_that_fails_on_its_inputs():
    model = Forked().eval()
    with pytest.raises(ConfigurationError, match="fails on its example inputs, RuntimeError"):
        examine(subject(model, torch.ones(2, 5)), Prescription(requests=4))
    assert "forward" not in vars(model)


def test_a_model_that_ends_the_process_on_its_inputs():
    class Leaves(Forked):
        def forward(self, x):
            raise SystemExit(4)

    with pytest.raises(ConfigurationError, match="fails on its example inputs, SystemExit: 4"):
        examine(subject(Leaves(), torch.ones(2, 4)), Prescription(requests=4))


def test_what_is_no_model():
    with pytest.raises(AttachError):
        examine(Subject(7, (Request((), {}),)), Prescription())


def test_an_agent_that_is_switched_off(monkeypatch):
    monkeypatch.setenv("CALIDRIFT_DISABLED", "1")
    with pytest.raises(ConfigurationError, match=r"nothing can be examined: .*CALIDRIFT_DISABLED"):
        examine(subject(), Prescription())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"requests": 3}, "at least 4"),
        ({"traffic": 0.0}, "traffic is 0.0"),
        ({"traffic": float("nan")}, "traffic is nan"),
    ],
)
def test_prescriptions_that_make_no_sense(wrong, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        Prescription(**wrong)
