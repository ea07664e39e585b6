"""A declared model in a folder, and the child's job run in this process, where it is fast."""

import json
import sys
import textwrap

import numpy as np
import pytest
import torch

from calidrift_agent._capture._file import CaptureRow, encode_capture, points_digest
from calidrift_agent._vocabulary import CaptureKind
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.offline import _job, _offline

CODE = """
import torch
from torch import nn

torch.set_num_threads(1)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.second = nn.Linear(8, 2)

    def forward(self, x, scale=None):
        y = torch.relu(self.first(x if scale is None else x * scale))
        return self.second(y)

class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, input_ids, attention_mask):
        return self.head(self.embed(input_ids) * attention_mask[..., None])

def build():
    torch.manual_seed(0)
    return Net()

def without():
    class Without(nn.Module):
        def forward(self, x):
            return x
    return Without()

def half():
    return build().half()

def text():
    torch.manual_seed(0)
    return Text()

def example():
    return (torch.zeros(2, 4),)

def half_example():
    return (torch.zeros(2, 4, dtype=torch.float16),)

def text_example():
    return torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.long)

def nested_example():
    return (torch.zeros(2, 4), 3)

def calibration():
    generator = torch.Generator().manual_seed(0)
    for _ in range(16):
        yield torch.randn(32, 4, generator=generator)

def half_calibration():
    for batch in calibration():
        yield batch.half()

def small_calibration():
    yield next(calibration())[:3]

def wrong_calibration():
    yield torch.zeros(2, 5)

def text_calibration():
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        yield (
            torch.randint(0, 10, (16, 3), generator=generator),
            torch.ones(16, 3, dtype=torch.long),
        )

def evaluate(model, split):
    raise RuntimeError("nobody asks for this")
"""


@pytest.fixture
def contract(tmp_path, monkeypatch):
    root = tmp_path / "service"
    root.mkdir()
    (root / "offline_user.py").write_text(textwrap.dedent(CODE), encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    threads = torch.get_num_threads()
    yield ModelContract(
        name="net",
        root=root,
        factory="offline_user:build",
        example_inputs="offline_user:example",
        calibration="offline_user:calibration",
        evaluate="offline_user:evaluate",
        registry=root / "registry",
    )
    torch.set_num_threads(threads)
    sys.modules.pop("offline_user", None)


@pytest.fixture
def here(monkeypatch):
    """The child's job in this process, through the same JSON; gives what it reported."""
    told = []

    def run(job, request, *, progress=None):
        assert job == f"{_job.__name__}:run"

        def note(what, done, total):
            told.append((what, done, total))

        return json.loads(json.dumps(_job.run(json.loads(json.dumps(request)), note)))

    monkeypatch.setattr(_offline, "run_in_child", run)
    return told


@pytest.fixture
def recorded(tmp_path):
    """A folder of recorded inputs: by day as calibrated, by night three times as large."""
    folder = tmp_path / "recorded"
    for name in ("day", "night"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(1)
    np.save(folder / "day" / "a.npy", rng.normal(size=(120, 4)).astype(np.float32))
    np.savez(folder / "night" / "b.npz", x=3 * rng.normal(size=(60, 4)))
    (folder / "notes.txt").write_text("not an input", encoding="utf-8")
    return folder


@pytest.fixture
def write_capture():
    """Writes one capture file, as an agent does."""

    def write(
        path, value, *, name="input", kind=CaptureKind.UNIFORM, bfloat16=(), segment="", time_ns=7
    ):
        row = CaptureRow(
            inputs={name: value},
            maxima=np.array([1.0], np.float32),
            uncovered=kind is CaptureKind.UNCOVERED,
            time_ns=time_ns,
            segment=segment,
            bfloat16=bfloat16,
        )
        header = {
            "id": "0" * 32,
            "kind": str(kind),
            "model": "net",
            "profile": "",
            "points": '["a"]',
            "points_digest": points_digest(("a",)),
        }
        path.write_bytes(encode_capture(row, row.inputs, header))

    return write
