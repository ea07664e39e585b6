"""What the demo serves: requests of its traffic, and never a model that fell back to float."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from calidrift_analyzer.demo import _service
from calidrift_analyzer.demo._contract import REQUEST_ROWS
from calidrift_analyzer.demo._data import LOW_LIGHT, Condition
from calidrift_analyzer.demo._traffic import Traffic
from calidrift_analyzer.errors import ConfigurationError, RefusedError
from calidrift_analyzer.records import KernelReport, LayerKernels, LayerKind


def test_requests_have_one_condition_each_and_follow_from_the_seed():
    once, again = (list(Traffic(4).requests(40, tuple(Condition))) for _ in range(2))

    assert {condition for condition, _ in once} == set(Condition)
    for (condition, request), (_, same) in zip(once, again, strict=True):
        assert request.shape == (REQUEST_ROWS, 1, 8, 8)
        assert request.dtype == torch.float32
        assert request.equal(same)
        assert (request.max() <= np.float32(LOW_LIGHT)) == (condition is Condition.LOW_LIGHT)


def test_the_stream_goes_on_where_it_stopped():
    whole = [request for _, request in Traffic(4).requests(6, (Condition.NOISY,))]
    traffic = Traffic(4)
    parts = [
        request for count in (2, 4) for _, request in traffic.requests(count, (Condition.NOISY,))
    ]

    assert all(one.equal(two) for one, two in zip(whole, parts, strict=True))


def test_a_model_that_fell_back_to_float_is_not_served(monkeypatch):
    kernels = KernelReport((LayerKernels("stem", LayerKind.CONVOLUTION, 1, 0),), in_code=0)
    monkeypatch.setattr(
        _service, "compile_int8", lambda graph, inputs: SimpleNamespace(kernels=kernels)
    )

    with pytest.raises(RefusedError, match=r"0 of 1 planned INT8 kernels.*missing: stem"):
        _service.deploy(object(), object(), ())


def test_serving_names_the_segment_and_closes_the_window():
    from calidrift_agent._observe import current_context

    served, flushed = [], []

    def answer(request):
        served.append((current_context().segment, len(request)))

    deployed = SimpleNamespace(module=answer)
    service = _service.Service(deployed, Traffic(0), lambda: flushed.append(len(served)))
    service.serve(3, (Condition.LOW_LIGHT,))
    service.serve(2, (Condition.NOISY,))

    assert served == [("low-light", REQUEST_ROWS)] * 3 + [("noisy", REQUEST_ROWS)] * 2
    assert flushed == [3, 5]


def test_a_machine_that_switches_the_agent_off_is_told_so(monkeypatch, tmp_path):
    from torch import nn

    from calidrift_agent import calibrate
    from calidrift_analyzer.demo import DemoOptions
    from calidrift_analyzer.demo._workdir import Workdir

    monkeypatch.setenv("CALIDRIFT_DISABLED", "1")
    model = nn.Sequential(nn.Linear(2, 2)).eval()
    deployed = SimpleNamespace(module=model, profile=calibrate(model, [torch.ones(4, 2)]))
    options = DemoOptions(workdir=tmp_path / "demo")
    workdir = Workdir.prepare(options.workdir, 0)

    with (
        pytest.raises(ConfigurationError, match="switched off by CALIDRIFT_DISABLED"),
        _service.Service.running(deployed, workdir, Traffic(0), options),
    ):
        pass
