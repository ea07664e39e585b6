"""`calidrift demo`, as a user runs it: one process, one document, every bar cleared."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("calidrift")
CONDITIONS = {"original", "low-light", "high-contrast", "noisy"}
POINT = 0.01


def calidrift(*words, cwd, **variables):
    return subprocess.run(
        [str(COMMAND), *map(str, words)],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One whole demo; its settings must not listen to the variables of the machine's services."""
    folder = tmp_path_factory.mktemp("demo")
    ended = calidrift(
        "demo",
        "--seed",
        "5",
        "--workdir",
        "run",
        "--json",
        cwd=folder,
        CALIDRIFT_DATABASE=str(folder / "somebody-elses.duckdb"),
    )
    assert ended.returncode == 0, ended.stderr
    return folder, ended


@pytest.fixture(scope="module")
def document(run):
    return json.loads(run[1].stdout)


pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_fp32_withstands_the_shift_and_the_stale_version_does_not(document):
    assert document["fp32_accuracy"] >= 0.94
    assert document["fp32_accuracy"] - document["stale_int8_accuracy"] >= 5 * POINT
    worst = document["fp32_worst_segment_accuracy"] - document["stale_worst_segment_accuracy"]
    assert worst >= 15 * POINT


def test_fp32_withstands_every_condition(document):
    assert {
        name: one["fp32"] for name, one in document["segments"].items() if one["fp32"] < 0.88
    } == {}


def test_both_recalibrations_restore_it(document):
    assert document["fp32_accuracy"] - document["recalibrated_int8_accuracy"] <= 1 * POINT
    assert document["fp32_accuracy"] - document["sketch_only_int8_accuracy"] <= 1.5 * POINT


def test_the_alarm_comes_soon_after_the_shift_and_not_before(document):
    assert document["alarm_before_shift"] is False
    assert 0 < document["observed_until_alarm"] <= 50
    assert document["requests_until_alarm"] > document["observed_until_alarm"]
    assert 0.08 <= document["sampling_ratio"] <= 0.12
    assert document["overhead_ratio"] > 0


def test_coverage_is_lost_and_regained(document):
    assert document["request_coverage_before"] < 0.5
    assert document["request_coverage_after"] >= 0.95
    assert document["verdict_after"] == "not_drifted"
    assert document["sqnr_change_db"]["before"] <= -6
    assert document["sqnr_change_db"]["after"] >= -1


def test_the_promoted_version_gets_a_reference_of_random_units(document):
    assert document["alarm_in_burn_in"] is False
    assert 320 <= document["reference_units"] <= 320 + 50  # whole windows of 200 requests


def test_samples_come_from_the_conditions_that_were_not_covered(document):
    assert document["selected_samples"] == sum(document["selected_by"].values()) == 64
    assert set(document["selected_by"]) <= CONDITIONS
    bright = sum(count for name, count in document["selected_by"].items() if name != "low-light")
    assert bright >= 0.8 * document["selected_samples"]


def test_every_candidate_was_measured(document):
    names = {
        f"{source}-{estimator}"
        for source in ("sketch", "samples")
        for estimator in ("absmax", "percentile", "mse", "kl")
    }
    assert set(document["estimators"]) == names
    assert document["promoted_candidate"] in names
    for found in document["estimators"].values():
        assert 0 <= found["accuracy"] <= 1
        assert found["sqnr_db"] is not None


def test_the_promoted_version_is_small_and_runs_in_int8(document):
    assert document["size_ratio"] >= 3.9
    assert document["int8_kernels_found"] == document["int8_kernels_planned"] == 10
    low, high = document["latency_ratio_interval"]
    assert 0 < low <= document["latency_ratio_int8_to_fp32"] <= high


def test_segments_agree_with_the_whole(document):
    segments = document["segments"]
    assert set(segments) == CONDITIONS
    for key in ("fp32", "stale_int8", "recalibrated_int8"):
        mean = sum(one[key] for one in segments.values()) / 4
        assert mean == pytest.approx(document[f"{key}_accuracy"], abs=1e-9)
    lost = {name: one["fp32"] - one["stale_int8"] for name, one in segments.items()}
    assert document["worst_segment"] == max(lost, key=lost.get)


def test_steps_and_seconds_are_told_on_standard_error(run, document):
    told = run[1].stderr
    assert document["step_seconds"]
    for step in document["step_seconds"]:
        assert step in told
    assert document["wall_seconds"] >= sum(document["step_seconds"].values()) - 0.01


def test_files_are_where_it_says(run, document):
    folder = run[0] / "run"
    assert document["workdir"] == str(folder)
    assert Path(document["plot_png"]).read_bytes().startswith(b"\x89PNG")
    drawn = Path(document["plot_svg"]).read_text(encoding="utf-8")
    assert all(f">{condition}<" in drawn for condition in CONDITIONS)
    assert json.loads((folder / "result.json").read_text(encoding="utf-8")) == document
    assert not (run[0] / "somebody-elses.duckdb").exists()


def test_the_other_commands_work_on_its_folder(run, document):
    config = document["config"]

    ended = calidrift("status", "--config", config, "--json", cwd=run[0])
    assert ended.returncode == 0, ended.stderr
    (status,) = json.loads(ended.stdout)["models"]
    assert status["verdict"] == "not_drifted"
    assert status["request_coverage"]["estimate"] == document["request_coverage_after"]

    shown = calidrift("coverage", "--config", config, cwd=run[0])
    assert shown.returncode == 0, shown.stderr
    assert "high-contrast" in shown.stdout


def test_the_registry_serves_what_was_promoted(document):
    from calidrift_agent import CalibrationProfile, open_version

    version = open_version(Path(document["workdir"]) / "registry", "digits")
    assert version.id == document["learned_version"]
    assert version.parent == document["promoted_version"]
    profile = CalibrationProfile.load(version.profile_path)
    assert profile.reference.is_random
    assert profile.units == document["reference_units"]
    promoted = open_version(Path(document["workdir"]) / "registry", "digits", version.parent)
    assert profile.reference.learned_from == CalibrationProfile.load(promoted.profile_path).digest
    assert version.model_path.read_bytes() == promoted.model_path.read_bytes()


def test_a_folder_with_other_files_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "thesis.tex").touch()

    ended = calidrift("demo", "--workdir", tmp_path, cwd=tmp_path)

    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "thesis.tex" in ended.stderr
    assert "--workdir" in ended.stderr


def test_a_configuration_of_ones_own_is_not_taken(tmp_path):
    (tmp_path / "calidrift.toml").touch()

    ended = calidrift("demo", "--config", "calidrift.toml", cwd=tmp_path)

    assert ended.returncode == 2
    assert "leave --config out" in ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calidrift.toml"]
