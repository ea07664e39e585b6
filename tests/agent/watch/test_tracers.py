"""What takes a model apart finds the model, and no tap: TorchScript, export, FX, ONNX."""

import io

import pytest
import torch
from torch import nn

from calidrift_agent._vocabulary import RequestColumn, Stage

pytestmark = pytest.mark.usefixtures("fresh_dynamo")

ERRORS = slice(RequestColumn.ERROR_FIRST, RequestColumn.ERROR_FIRST + len(Stage))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


class Outer(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + 1


def scripted(model, x):
    found = torch.jit.script(model)
    stored = io.BytesIO()
    torch.jit.save(found, stored)
    stored.seek(0)
    return torch.jit.load(stored), found.code + "".join(str(m.code) for m in found.children())


def traced(model, x):
    found = torch.jit.trace(model, x)
    return found, found.code


def exported(model, x):
    found = torch.export.export(model, (x,), strict=False).module()
    return found, found.code


def exported_strictly(model, x):
    found = torch.export.export(model, (x,), strict=True).module()
    return found, found.code


def symbolic(model, x):
    found = torch.fx.symbolic_trace(model)
    return found, found.code


def proxied(model, x):
    found = torch.fx.experimental.proxy_tensor.make_fx(model)(x)
    return found, found.code


@pytest.fixture
def x():
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript as a whole
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.export's own tree specification
@pytest.mark.parametrize("outer", [False, True], ids=["root", "part"])
@pytest.mark.parametrize("kind", [Net, lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU())])
@pytest.mark.parametrize("way", [scripted, traced, exported, exported_strictly, symbolic, proxied])
def test_what_is_made_of_a_watched_model_is_made_of_the_plain_one(x, watch_all, way, kind, outer):
    model = kind().eval()
    whole = Outer(model).eval() if outer else model
    expected = whole(x)
    _, plain = way(whole, x)
    watch = watch_all(model)
    made, code = way(whole, x)
    assert torch.equal(made(x), expected)
    assert code == plain
    assert not watch.flush().requests[ERRORS].any()
    before = watch.report().observed_calls
    assert torch.equal(whole(x), expected)
    assert watch.report().observed_calls == before + 1
    watch.close()
    assert torch.equal(made(x), expected)
    assert "forward" not in model.__dict__


@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx_of_a_watched_model(x, watch_all, tmp_path, dynamo):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = Net().eval()
    expected = model(x).detach()
    watch = watch_all(model)
    path = tmp_path / "net.onnx"
    torch.onnx.export(model, (x,), path, dynamo=dynamo)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected)
    assert not watch.flush().requests[ERRORS].any()
