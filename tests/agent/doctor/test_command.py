"""`calidrift doctor` from the words to what is printed."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from calidrift_agent import calibrate
from calidrift_agent._command_line import run
from calidrift_agent._doctor import as_document, as_text
from calidrift_agent._doctor._text import size
from calidrift_agent._watch import ReferenceUnits

MODULE = """
import torch
from torch import nn

print("loading weights")

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), torch.ones(2, 4)
"""


def test_the_text(module, capsys):
    assert run(["doctor", f"{module(MODULE)}:build", "--requests", "5", "--traffic", "20"]) == 0
    shown = capsys.readouterr().out
    for line in (
        "strategy               instead (instrument: range)",
        "observed               5 of 5 requests",
        "Points (2):\n  0:input\n  2:input",
        "Not observed (0):\n  nothing",
        "never: there is no reference",
        "What to change:\n  1. There is no calibration profile",
    ):
        assert line in shown
    assert "per observed request" in shown


def test_one_json_document(module, capsys, tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    batches = [torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))]
    name = module(MODULE.replace("torch.manual_seed(0)", ""))
    path = tmp_path / "profile.json"
    calibrate(model, batches).save(path)
    # A profile of other weights does not belong to this model.
    assert run(["doctor", f"{name}:build", "--profile", str(path), "--json"]) == 2
    assert "does not belong" in json.loads(capsys.readouterr().out)["error"]["message"]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    calibrate(model, batches).save(path)
    words = ["doctor", f"{module(MODULE)}:build", "--profile", str(path), "--json"]
    assert run([*words, "--traffic", "100", "--requests", "6"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["strategy"] == "instead"
    assert document["observed"] == ["0:input", "2:input"]
    assert document["observed_requests"] == 6
    assert document["series"] > 20
    detection = document["detection"]
    ratio = document["sampling_ratio"]
    assert detection["seconds"] == pytest.approx(detection["observed_requests"] / 100 / ratio)
    # A tiny model is dear to observe: what a budget buys depends on how busy the machine is.
    assert all("WatchOptions.budget" in sentence for sentence in document["advice"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["absent_module_y:f"], "cannot be imported"),
        (["nocolon"], "package.module:callable"),
        (["{}:build", "--requests", "1"], "at least 4"),
        (["{}:build", "--requests", "100001"], "at most 100000"),
        (["{}:build", "--traffic", "-1"], "traffic is -1.0"),
        (["./{}.py:build"], "which names a file, but must name a callable"),
        ([".{}:build"], "which names a file"),
        (["{}:build", "--inputs", "{}:absent"], "has no callable 'absent'"),
        (["{}:build", "--profile", "absent.json"], "absent.json"),
        (["{}:build", "--config", "x.toml"], "reads no configuration file"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(module, capsys, words, sentence):
    name = module(MODULE)
    assert run(["doctor", *(word.format(name) for word in words)]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1 + told.count("loading weights")


def test_what_is_known_is_shown(found):
    shown = as_text(found(skipped={"": "closed", "lstm": "no taps"}, notes=("a remark",)))
    assert "4 ms per observed request, 2 times its forward (2 ms)" in shown
    assert "a budget of 1% buys    a sampling ratio of 0.005" in shown
    counted = size(found().report.cost.state_bytes)
    assert f"{counted} for what is counted, 4 KiB for copies" in shown
    assert "dequantized weights" not in shown  # there are none
    cost = replace(found().report.cost, weight_bytes=3 * 2**20)
    assert "4 KiB for copies, 3 MiB for dequantized weights" in as_text(found(cost=cost))
    assert as_document(found(cost=cost))["weight_bytes"] == 3 * 2**20
    assert "disk per process       1 MiB" in shown
    assert "at 50 requests/s" in shown
    assert "  the model: closed\n  lstm: no taps\n" in shown
    assert "Notes:\n  a remark\n" in shown
    assert shown.endswith("What to change:\n  nothing\n")


def test_what_is_not_known_is_not_shown_as_a_figure(found):
    bare = found(cost=None)
    assert "overhead" not in as_text(bare)
    document = as_document(bare)
    assert document["own_seconds"] is document["series"] is document["sampling_ratio"] is None
    fresh = as_text(found(cost=type(found().report.cost)(2)))
    assert "overhead               not measured" in fresh
    assert "disk per process       none" in fresh


def test_why_an_exceedance_is_never_detected(found):
    small = found(references=(ReferenceUnits(1, 512),) * 2)
    limit = small.report.detectable_exceedance
    assert f"never with this reference: the smallest that can be is {limit:.2%}" in as_text(small)
    assert "nothing can be" in as_text(found(references=(ReferenceUnits(2, 2),)))
    assert "observed requests\n" in as_text(found(traffic=None))
    assert "errors                 tap: 1" in as_text(found(errors={"tap": 1}))
    assert "dropped                queue_full: 4" in as_text(found(dropped={"queue_full": 4}))
