"""`calidrift demo-stack` on a made-up result: what people and machines read."""

import json
from pathlib import Path

import pytest

from calidrift_agent._command_line import run
from calidrift_analyzer.cli import _demo_stack
from calidrift_analyzer.demo.stack import Shortened, StackResult, StackStep

ROOT = Path(__file__).resolve().parents[3]
RESULT = StackResult(
    seed=3,
    speed=60.0,
    least_hold_seconds=20.0,
    rules=(Shortened("CalidriftCoverageLow", "10m", "10s"),),
    setup_seconds={"train": 8.25},
    steps=(StackStep("the rule fires", 4.25, 1.5, "CalidriftCoverageLow"),),
    alerts=("CalidriftCoverageLow",),
    other_alerts=(),
    job=1,
    first="000000-z",
    version="000001-a",
    candidate="sketch-mse",
    coverage_before=0.25,
    coverage_after=0.99,
    requests=1_500,
    lost=1,
    loss=("TimeoutError: timed out",),
    answers={"baseline": 1_000, "000001-a": 499},
    slowest_seconds=0.0421,
    addresses={"prometheus": "http://127.0.0.1:9"},
    wall_seconds=123.4,
    workdir=Path("/demo"),
    config=Path("/demo/calidrift.toml"),
)


@pytest.fixture
def demo(monkeypatch, capsys, tmp_path):
    """Run the command with a stand-in for the minutes of work."""
    monkeypatch.chdir(tmp_path)
    given = []

    def start(*words):
        def run_stack(options, rules, narrator, stay):
            given.append((options, rules))
            with narrator.step("train") as progress:
                progress("training", 1, 2)
            stay(RESULT)
            return RESULT

        def interrupt(seconds):
            raise KeyboardInterrupt

        monkeypatch.setattr(_demo_stack, "run_stack", run_stack)
        monkeypatch.setattr(_demo_stack.time, "sleep", interrupt)
        status = run(["demo-stack", *words])
        written = capsys.readouterr()
        return status, written.out, written.err, given[-1] if given else None

    return start


def test_machines_get_one_document_with_every_figure(demo):
    status, out, _, (options, _) = demo("--json", "--seed", "3", "--workdir", "x", "--speed", "30")

    document = json.loads(out)
    assert status == 0
    assert (options.seed, options.workdir, options.speed) == (3, Path("x"), 30.0)
    assert set(document) == set(StackResult.__dataclass_fields__)
    assert document["steps"][0] == {
        "name": "the rule fires",
        "at_seconds": 4.25,
        "took_seconds": 1.5,
        "told": "CalidriftCoverageLow",
    }


def test_people_get_times_steps_and_losses(demo, tmp_path):
    status, out, told, (options, _) = demo()

    assert status == 0
    for text in (
        "times divided by 60, none that was longer below 20 s",
        "10m",
        "10s",
        "the rule fires",
        "4.2",
        "1,499 (1,000 by baseline, 499 by 000001-a)",
        "1; TimeoutError: timed out",
        "42 ms",
        "25 % when the rule fired, 99 % in the end",
        "none",
        "000001-a: sketch-mse, by job 1",
        "123 s",
    ):
        assert text in " ".join(out.split())
    assert told.splitlines() == ["   0.0 s  train"]
    assert options.workdir == tmp_path / "calidrift-demo-stack"


def test_the_rules_are_the_committed_ones(demo):
    *_, (_, rules) = demo()

    folder = ROOT / "dashboards" / "prometheus"
    assert rules == {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_it_may_stay_until_somebody_has_seen_enough(demo):
    status, _, told, _ = demo("--stay")

    assert status == 0
    assert "http://127.0.0.1:9" in told
    assert "/demo/tokens.toml" in told
    assert "until Ctrl-C" in told
    assert told.splitlines()[-1] == "ending what was started"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--config", "calidrift.toml"], "leave --config out"),
        (["--seed", "-1"], "whole number from 0"),
        (["--speed", "1"], "from 10 to 600"),
        (["--speed", "nan"], "from 10 to 600"),
    ],
    ids=["config", "seed", "slow", "nan"],
)
def test_a_mistake_is_told_in_one_sentence(words, told, demo):
    status, _, written, given = demo(*words)

    assert status == 2
    assert told in " ".join(written.split())
    assert given is None


def test_where_a_server_is_missing_it_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    status = run(["demo-stack", "--json"])

    written = capsys.readouterr()
    assert status == 2
    assert json.loads(written.out)["error"]["kind"] == "ToolchainError"
    [sentence] = written.err.splitlines()
    assert "there is no prometheus on this machine" in sentence
    assert "apt-get install prometheus prometheus-alertmanager" in sentence
    assert list(tmp_path.iterdir()) == []
