"""A small shop: user code and configuration of one model in a folder of its own."""

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from calidrift_agent._command_line import run

CODE = """
import torch
from torch import nn

torch.set_num_threads(1)

def build():
    torch.manual_seed(0)
    print("user code talks")
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

def example():
    return (torch.zeros(2, 4),)

def calibration():
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        yield torch.randn(16, 4, generator=generator)

def evaluate(model, split):
    raise RuntimeError("no labels today")

def broken():
    raise RuntimeError("the disk is gone")
"""

CONFIG = """
[models.shop]
factory = "shop_code:build"
example_inputs = "shop_code:example"
calibration = "shop_code:calibration"
evaluate = "shop_code:evaluate"
"""


@dataclass
class Shop:
    """The folder, and how to run a command there."""

    root: Path
    capsys: pytest.CaptureFixture

    def configure(self, text):
        (self.root / "calidrift.toml").write_text(text, encoding="utf-8")

    def run(self, *words):
        """Run a command; give its status, standard output and standard error."""
        status = run([*words, "--config", str(self.root / "calidrift.toml")])
        written = self.capsys.readouterr()
        return status, written.out, written.err

    def json(self, *words):
        """Run a command with `--json`; give its status and its document."""
        status, out, _ = self.run(*words, "--json")
        return status, json.loads(out)


@pytest.fixture
def shop(tmp_path, capsys):
    root = tmp_path / "shop"
    root.mkdir()
    (root / "shop_code.py").write_text(textwrap.dedent(CODE), encoding="utf-8")
    made = Shop(root, capsys)
    made.configure(CONFIG)
    return made
