"""What README.md tells people to type: it runs, it parses, and the commands exist."""

import re
import sys
import textwrap
import tomllib
from pathlib import Path

import prometheus_client
import pytest
import torch
from torch import nn

from calidrift_agent import CalibrationProfile, StateReader
from calidrift_agent._command_line._table import joined
from calidrift_analyzer.config import load_config
from calidrift_analyzer.contract import Evaluation, UserCode

README = Path(__file__).resolve().parents[2] / "README.md"
STATE_DIR = "/run/calidrift"


def section(heading: str) -> str:
    """The text below a heading, up to the next one of the same rank."""
    parts = re.split(r"^## ", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (found,) = [part for part in parts if part.startswith(f"{heading}\n")]
    return found


def block(language: str, heading: str = "Attach it to your own service") -> str:
    """The only fenced block of a language in a section."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", section(heading), re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the example takes for granted, and a folder in which it may write."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prometheus_client, "REGISTRY", prometheus_client.CollectorRegistry())
    monkeypatch.delenv("CALIDRIFT_DISABLED", raising=False)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    batches = [torch.randn(8, 3, 8, 8, generator=generator) for _ in range(4)]
    images = torch.randn(2, 3, 8, 8, generator=generator)
    return {"model": model, "calibration_batches": batches, "images": images}


def test_the_example_of_attaching_runs_as_it_stands(names, tmp_path):
    code = block("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    assert code.count(STATE_DIR) == 1
    model, images = names["model"], names["images"]
    before, plain = dict(model.__dict__), model(images)
    lines = code.replace(STATE_DIR, str(tmp_path / "state")).splitlines(keepends=True)
    close = next(at for at, line in enumerate(lines) if line.startswith("watch.close()"))

    exec(compile("".join(lines[:close]), str(README), "exec"), names)

    watch = names["watch"]
    assert watch.report().active
    assert watch.report().points == ("0:input", "3:input")
    assert "forward" in model.__dict__, "calls go through the watch"
    assert torch.equal(names["answer"], plain)
    scraped = prometheus_client.generate_latest(prometheus_client.REGISTRY).decode()
    assert 'calidrift_agent_seen_requests_total{model="resnet"} 1.0' in scraped
    assert CalibrationProfile.load("profile.json").digest == names["profile"].digest

    exec(compile("".join(lines[close:]), str(README), "exec"), names)

    assert not watch.report().active
    assert dict(model.__dict__) == before, "the model is exactly as before"
    (state,) = (tmp_path / "state").glob("*.state")
    with StateReader.open(state) as reader:
        assert reader.meta.model == "resnet"


MODEL_CODE = """
from torch import nn

def build():
    return nn.Linear(4, 2)

def examples():
    import torch
    return (torch.zeros(2, 4),)
"""
DATA_CODE = """
import torch
from calidrift_analyzer.recalibrate import Evaluation

def calibration():
    yield torch.zeros(2, 4)

def evaluate(model, split):
    return Evaluation(correct=(model(torch.ones(3, 4)).argmax(1) >= 0).numpy())
"""


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A folder with the README's calidrift.toml and the code that it names."""
    package = tmp_path / "myservice"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "model.py").write_text(textwrap.dedent(MODEL_CODE), encoding="utf-8")
    (package / "data.py").write_text(textwrap.dedent(DATA_CODE), encoding="utf-8")
    (tmp_path / "calidrift.toml").write_text(block("toml"), encoding="utf-8")
    from safetensors.torch import save_file

    save_file(nn.Linear(4, 2).state_dict(), tmp_path / "weights.safetensors")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "myservice"]:
        del sys.modules[name]


def test_the_configuration_parses_and_its_code_is_called_as_its_comments_say(service):
    config = load_config(service / "calidrift.toml", variables={})

    assert config.state_dirs == (Path(STATE_DIR),)
    assert config.database == service / "calidrift.duckdb"
    contract = config.model("resnet")
    assert contract.registry == Path("/srv/models")
    code = UserCode(contract)
    model = code.model()
    (example,) = code.example_inputs()
    assert model(example).shape == (2, 2)
    assert [batch.shape for batch in code.calibration()] == [(2, 4)]
    assert isinstance(code.evaluate(model, "gate"), Evaluation)


def test_code_and_configuration_are_about_one_service():
    declared = tomllib.loads(block("toml"))
    code = block("python")

    (name,) = declared["models"]
    assert f'name="{name}"' in code
    assert f'state_dir="{declared["analyzer"]["state_dirs"][0]}"' in code
    opened = re.search(r"calidrift_agent\.open_version\(\"(.*?)\", \"(.*?)\"\)", README.read_text())
    assert opened is not None
    assert opened.groups() == (declared["models"][name]["registry"], name)


def test_every_command_of_the_readme_exists():
    text = README.read_text(encoding="utf-8")

    typed = set(re.findall(r"^\$ calidrift ([a-z]+)", text, re.MULTILINE))
    typed |= set(re.findall(r"`calidrift ([a-z]+)", text))

    assert {"status", "select", "recalibrate", "validate", "promote", "rollback"} <= typed
    assert typed - {command.name for command in joined()} == set()


def test_every_make_target_of_the_readme_exists():
    text = README.read_text(encoding="utf-8")
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")

    asked = set(re.findall(r"(?:^\$ |`)make ([a-z]+)", text, re.MULTILINE))

    assert asked >= {"demo", "test"}
    assert asked - set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE)) == set()
