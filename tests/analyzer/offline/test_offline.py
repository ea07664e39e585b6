"""The whole way of recorded inputs, and that it is the judgement that production would get."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from calidrift_agent import CaptureOptions, WatchOptions, calibrate, request_context, watch
from calidrift_agent._capture import list_captures, read_capture
from calidrift_agent._vocabulary import CaptureKind
from calidrift_agent.errors import AttachError, ProfileMismatchError
from calidrift_analyzer.assess import assess_stored
from calidrift_analyzer.collect import collect
from calidrift_analyzer.contract import UserCode
from calidrift_analyzer.errors import ConfigurationError, ContractError
from calidrift_analyzer.offline import (
    OfflineOptions,
    SegmentBy,
    assess_inputs,
    find_sources,
)
from calidrift_analyzer.records import Verdict
from calidrift_analyzer.store import Store

BEFORE = OfflineOptions(before_quantization=True)


@pytest.fixture
def profile(contract):
    """The profile that `calidrift calibrate` saves, beside the configuration."""
    code = UserCode(contract)
    found = calibrate(code.model(), code.calibration())
    found.save(contract.root / "net.profile.json")
    return found


def assessed(contract, path, **options):
    return assess_inputs(contract, find_sources(path), options=OfflineOptions(**options))


def test_it_is_the_judgement_that_production_would_get(contract, here, profile, tmp_path):
    """The same rows, one by one through `watch` and as a file: unit for unit, cell for cell."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(200, 4)).astype(np.float32) * np.repeat([1, 3], 100)[:, None]
    rows = rows.astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    model = UserCode(contract).model()
    options = WatchOptions(budget=None, window_seconds=86_400.0, seed=0)
    with watch(
        model,
        name="net",
        profile=profile,
        state_dir=tmp_path / "state",
        sample_rate=1.0,
        options=options,
    ) as watching:
        for start in range(0, 200, 32):
            for row in rows[start : start + 32]:
                model(torch.from_numpy(row[None]))
            watching.flush()
    with Store.open(tmp_path / "x.duckdb") as store:
        collect((tmp_path / "state",), store)
        online = assess_stored(store, "net")

    offline = assessed(contract, tmp_path / "rows.npy").assessment

    assert online.verdict is Verdict.DRIFTED_HARMFUL
    assert (offline.verdict, offline.units, offline.request_coverage) == (
        online.verdict,
        online.units,
        online.request_coverage,
    )
    for given in online.points:
        found = offline.point(given.name)
        for name in (
            "verdict",
            "units",
            "exceedances",
            "coverage",
            "observed_bound",
            "sqnr_calibration_db",
        ):
            assert getattr(found, name) == getattr(given, name), (given.name, name)
        # A matrix product of 32 rows rounds otherwise than one of a single row.
        for name in ("sqnr_production_db", "lowest", "highest", "mass_coverage"):
            assert getattr(found, name) == pytest.approx(getattr(given, name), rel=1e-5)
        assert found.log10_evidence == pytest.approx(given.log10_evidence)
        assert found.alarm.units == given.alarm.units


def test_segments_by_folder_and_the_worst_of_them(contract, here, profile, recorded):
    report = assessed(contract, recorded, segment_by=SegmentBy.FOLDER)
    assert [one.name for one in report.assessment.segments] == ["night", "day"]
    assert report.worst_segment.name == "night"
    assert report.worst_segment.units == 60
    assert report.worst_segment.coverage.estimate < 0.9
    assert {one.segment for one in report.outside[:5]} == {"night"}
    assert report.profile_from == "net.profile.json, which `calidrift calibrate` saved"
    assert assessed(contract, recorded).worst_segment is None


def test_rows_outside_are_the_ones_that_left_a_bound(contract, here, profile, recorded):
    report = assessed(contract, recorded)
    model = UserCode(contract).model()
    rows = torch.from_numpy(
        np.concatenate(
            [
                np.load(recorded / "day" / "a.npy"),
                np.load(recorded / "night" / "b.npz")["x"].astype(np.float32),
            ]
        )
    )
    peaks = {
        "first:input": rows.abs().amax(1),
        "second:input": torch.relu(model.first(rows)).abs().amax(1),
    }
    ratios = torch.stack(
        [peak / profile.points[name].observed_bound.value for name, peak in peaks.items()]
    )
    largest, where = ratios.max(0)
    expected = {
        (f"{'day/a.npy' if row < 120 else 'night/b.npz'}", row if row < 120 else row - 120): (
            list(peaks)[int(where[row])],
            float(largest[row]),
        )
        for row in range(180)
        if largest[row] > 1
    }
    found = {(one.source, one.row): (one.point, one.ratio) for one in report.outside}
    assert found.keys() == expected.keys()
    for key, (point, ratio) in expected.items():
        assert found[key] == (point, pytest.approx(ratio, rel=1e-5))
    ordered = [one.ratio for one in report.outside]
    assert ordered == sorted(ordered, reverse=True)
    covered = report.assessment.request_coverage.estimate
    assert len(expected) == round(180 * (1 - covered))


def test_at_most_a_hundred_rows_are_named_and_nan_is_the_furthest(
    contract, here, profile, tmp_path
):
    rows = np.full((1_000, 4), 100.0, np.float32) + np.arange(1_000, dtype=np.float32)[:, None]
    rows[17, 2] = np.nan
    np.save(tmp_path / "x.npy", rows)
    report = assessed(contract, tmp_path / "x.npy")
    assert len(report.outside) == 100
    assert (report.outside[0].row, report.outside[0].ratio) == (17, None)
    assert [one.row for one in report.outside[1:4]] == [999, 998, 997]
    assert report.assessment.point("first:input").nan_elements == 1


def test_calm_inputs_are_calm(contract, here, profile, recorded):
    report = assessed(contract, recorded / "day")
    assert report.assessment.verdict is Verdict.NOT_DRIFTED
    assert here[-1] == ("running the inputs", 120, 120)


def test_captures_are_read_with_segments_and_selected_ones_counted(
    contract, here, profile, tmp_path
):
    model = UserCode(contract).model()
    rng = np.random.default_rng(2)
    with watch(
        model,
        name="net",
        profile=profile,
        state_dir=tmp_path / "state",
        sample_rate=1.0,
        capture=CaptureOptions(seed=0),
        options=WatchOptions(budget=None, seed=0),
    ):
        for turn in range(40):
            with request_context(segment="night" if turn % 2 else "day"):
                scale = 5.0 if turn % 2 else 0.5
                model(torch.from_numpy(scale * rng.normal(size=(1, 4))).float())
    paths = list_captures(tmp_path / "state")
    uncovered = [path for path in paths if read_capture(path).kind is CaptureKind.UNCOVERED]
    report = assessed(contract, tmp_path / "state")
    assert report.files == len(paths) == report.assessment.units
    assert report.selected == len(uncovered) > 0
    assert report.worst_segment.name == "night"


def test_captures_are_looked_at_in_the_order_of_their_times(
    contract, here, profile, tmp_path, write_capture
):
    rng = np.random.default_rng(3)
    for turn in range(80):
        late = turn >= 40
        value = (5.0 if late else 0.5) * rng.normal(size=(1, 4)).astype(np.float32)
        path = tmp_path / f"{'a' if late else 'b'}{turn}.safetensors"
        write_capture(path, value, name="x", time_ns=10**18 + turn)
    alarm = assessed(contract, tmp_path).assessment.alarm
    assert 40 < alarm.observed <= 80, "not by name: then it comes with the first ones"
    assert 10**18 + 39 <= alarm.end_ns < 10**18 + 80


def test_before_quantization_it_measures_the_calibration_set_itself(contract, here, recorded):
    calm = assess_inputs(contract, find_sources(recorded / "day"), options=BEFORE)
    assert calm.suffices
    assert [one.losing for one in calm.estimators] == [0, 0, 0, 0]
    assert calm.profile_from == "the calibration set (offline_user:calibration)"
    wide = assess_inputs(contract, find_sources(recorded), options=BEFORE)
    assert wide.suffices is False
    absmax = wide.estimators[0]
    assert absmax.inputs_db < absmax.calibration_db - 5
    assert wide.points[0].clipped > 0.01
    assert wide.assessment.point("first:input").clip_assumed
    assert not (contract.root / "net.profile.json").exists(), "nothing is stored"


def test_a_half_precision_model_takes_what_was_recorded_in_single(contract, here, recorded):
    half = replace(
        contract,
        factory="offline_user:half",
        example_inputs="offline_user:half_example",
        calibration="offline_user:half_calibration",
    )
    report = assess_inputs(half, find_sources(recorded), options=BEFORE)
    assert report.assessment.units == 180
    assert report.suffices is False


def test_a_calibration_set_that_is_too_small_to_tell(contract, here, recorded):
    small = replace(contract, calibration="offline_user:small_calibration")
    report = assess_inputs(small, find_sources(recorded / "day"), options=BEFORE)
    assert report.assessment.verdict is Verdict.LEARNING
    losing = all(one.losing for one in report.estimators)
    assert report.suffices is (False if losing else None)


def test_padding_is_left_out_and_further_inputs_arrive(contract, here, tmp_path):
    text = replace(
        contract,
        factory="offline_user:text",
        example_inputs="offline_user:text_example",
        calibration="offline_user:text_calibration",
    )
    arrays = {
        "input_ids": np.ones((6, 3), np.int64),
        "attention_mask": np.array([[1, 0, 0]] * 5 + [[0, 0, 0]], np.int64),
    }
    save_file(arrays, tmp_path / "x.safetensors")
    report = assess_inputs(text, find_sources(tmp_path), options=BEFORE)
    assert report.assessment.units == 5
    assert report.assessment.point("embed:output").units == 5


def test_keyword_inputs_reach_the_model(contract, here, profile, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.ones((40, 4), np.float32), scale=np.full((40, 1), 50.0, "f4"))
    report = assessed(contract, tmp_path / "x.npz")
    assert report.assessment.request_coverage.estimate == 0.0


def test_the_profile_of_another_model_is_refused(contract, here, profile, recorded, tmp_path):
    other = torch.nn.Sequential(torch.nn.Linear(4, 4)).eval()
    calibrate(other, [torch.randn(8, 4)]).save(tmp_path / "other.json")
    with pytest.raises(ProfileMismatchError, match="does not belong to this model"):
        assessed(contract, recorded, profile=tmp_path / "other.json")


def test_without_any_profile_it_says_what_to_do(contract, here, recorded):
    with pytest.raises(ConfigurationError, match="--before-quantization") as caught:
        assessed(contract, recorded)
    assert "no version in service" in str(caught.value)


def test_a_profile_beside_its_own_measurement_is_a_contradiction(contract, recorded, tmp_path):
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        assessed(contract, recorded, profile=tmp_path / "x", before_quantization=True)


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"calibration": "offline_user:wrong_calibration"}, ContractError, "calibration batch 1"),
        ({"example_inputs": "offline_user:nested_example"}, ContractError, "a int among"),
        ({"factory": "offline_user:missing"}, ContractError, "has no missing"),
        ({"factory": "offline_user:without"}, AttachError, "no convolution"),
    ],
    ids=["calibration", "examples", "factory", "points"],
)
def test_what_user_code_does_wrong_is_one_sentence(contract, here, recorded, changes, error, told):
    with pytest.raises(error, match=told) as caught:
        assess_inputs(replace(contract, **changes), find_sources(recorded), options=BEFORE)
    assert "\n" not in str(caught.value)


def test_rows_that_the_model_refuses_are_named(contract, here, profile, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 5), np.float32))
    with pytest.raises(ContractError, match=r"on x\.npy row 0 to x\.npy row 2 \(x \(3, 5\)\)"):
        assessed(contract, tmp_path / "x.npy")
