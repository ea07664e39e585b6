"""`calidrift demo` on a made-up result: what people and machines read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from calidrift_agent._command_line import run
from calidrift_analyzer.cli import _demo
from calidrift_analyzer.demo._result import (
    DemoResult,
    EstimatorScore,
    SegmentAccuracies,
    SqnrChange,
)
from calidrift_analyzer.records import Verdict

RESULT = DemoResult(
    seed=3,
    fp32_accuracy=0.97,
    stale_int8_accuracy=0.84,
    recalibrated_int8_accuracy=0.968,
    sketch_only_int8_accuracy=0.966,
    worst_segment="noisy",
    fp32_worst_segment_accuracy=0.95,
    stale_worst_segment_accuracy=0.65,
    recalibrated_worst_segment_accuracy=0.949,
    segments={"noisy": SegmentAccuracies(0.95, 0.65, 0.949)},
    request_coverage_before=0.25,
    request_coverage_after=0.99,
    reference_units=331,
    alarm_in_burn_in=False,
    verdict_after=Verdict.NOT_DRIFTED,
    alarm_before_shift=False,
    requests_until_alarm=300,
    observed_until_alarm=14,
    sampling_ratio=0.05,
    overhead_ratio=0.6,
    selected_samples=3,
    selected_by={"noisy": 2, "": 1},
    worst_point="stem:input",
    sqnr_change_db=SqnrChange(-55.9, None),
    estimators={"sketch-mse": EstimatorScore(0.96, 40.06), "samples-kl": EstimatorScore(0.8, None)},
    promoted_candidate="sketch-mse",
    promoted_version="000001-abc",
    learned_version="000002-def",
    size_ratio=3.97,
    int8_kernels_planned=10,
    int8_kernels_found=10,
    latency_ratio_int8_to_fp32=0.7,
    latency_ratio_interval=(0.68, 0.72),
    wall_seconds=101.0,
    step_seconds={"train": 1.0},
    workdir=Path("/demo"),
    config=Path("/demo/calidrift.toml"),
    plot_png=Path("/demo/a.png"),
    plot_svg=Path("/demo/a.svg"),
)


@pytest.fixture
def demo(monkeypatch, capsys, tmp_path):
    """Run the command with a stand-in for the minutes of work; gives status, output and options."""
    monkeypatch.chdir(tmp_path)
    given = []

    def start(*words, result=RESULT):
        def run_demo(options, narrator):
            given.append(options)
            with narrator.step("train") as progress:
                progress("training", 1, 2)
            return result

        monkeypatch.setattr(_demo, "run_demo", run_demo)
        status = run(["demo", *words])
        written = capsys.readouterr()
        return status, written.out, written.err, given[-1] if given else None

    return start


def test_machines_get_one_document_with_every_figure(demo):
    status, out, _, options = demo("--json", "--seed", "3", "--workdir", "there")

    document = json.loads(out)
    assert status == 0
    assert (options.seed, options.workdir) == (3, Path("there"))
    assert document["fp32_accuracy"] == 0.97
    assert document["sqnr_change_db"] == {"before": -55.9, "after": None}
    assert document["estimators"]["sketch-mse"] == {"accuracy": 0.96, "sqnr_db": 40.06}
    assert document["workdir"] == "/demo"
    assert set(document) >= set(DemoResult.__dataclass_fields__)


def test_people_get_tables_files_and_the_next_step(demo):
    status, out, told, _ = demo()

    assert status == 0
    for text in (
        "INT8, stale",
        "94.9 %",
        "14 observed requests after the shift (300 served), none before",
        "25 % before, 99 % after",
        "-55.9 dB before, - after",
        "3 (noisy 2, no segment 1)",
        "0.70 (95 % interval 0.68 to 0.72)",
        "3.97 times smaller",
        "calidrift status --config /demo/calidrift.toml",
    ):
        assert text in out
    assert told.splitlines() == ["   0.0 s  train"]


def test_by_default_the_files_are_kept_in_a_folder_here(demo, tmp_path):
    *_, options = demo()

    assert options.workdir == tmp_path / "calidrift-demo"
    assert options.seed == 0


def test_what_was_not_proven_is_not_shown_as_a_figure(demo):
    unproven = replace(
        RESULT,
        latency_ratio_int8_to_fp32=None,
        latency_ratio_interval=None,
        alarm_before_shift=True,
    )

    _, out, *_ = demo(result=unproven)

    assert "not reported: the INT8 kernels are not proven" in out
    assert "after a false one" in out


def test_another_configuration_is_refused(demo, tmp_path):
    (tmp_path / "calidrift.toml").touch()

    status, out, told, options = demo("--config", "calidrift.toml")

    assert (status, out, options) == (2, "", None)
    assert "leave --config out" in told
