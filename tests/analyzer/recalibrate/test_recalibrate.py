"""Candidates out of a child process."""

import dataclasses
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from calidrift_agent._points import QuantizedGraph, fingerprint_of
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import CountColumn, Instrument, ReferenceSource
from calidrift_analyzer.backend import load_graph
from calidrift_analyzer.errors import ConfigurationError, ContractError, NoDataError
from calidrift_analyzer.ranges import Estimator, estimate_range
from calidrift_analyzer.recalibrate import recalibrate
from calidrift_analyzer.records import Candidate, Production, Source, read_record, record_document

LAYERS = ("stem", "block.conv1", "block.conv2", "head")


def profile_of(candidate):
    return CalibrationProfile.load(candidate.path / "profile.json")


def by_id(candidates):
    return {candidate.id: candidate for candidate in candidates}


@pytest.mark.slow
def test_there_is_one_candidate_per_source_and_estimator(tiny_candidates):
    assert [candidate.id for candidate in tiny_candidates] == [
        "samples-absmax",
        "samples-percentile",
        "samples-mse",
        "samples-kl",
        "sketch-mse",
    ]
    for candidate in tiny_candidates:
        assert candidate.layers == LAYERS
        assert candidate.units == 512
        assert candidate.worst_point in profile_of(candidate).points
        assert 20 < candidate.worst_sqnr_db < 60
        assert candidate.files == {
            name: hashlib.sha256((candidate.path / name).read_bytes()).hexdigest()
            for name in ("model.pt2", "profile.json")
        }


@pytest.mark.slow
def test_bounds_of_candidates_are_no_random_units(tiny_candidates):
    for candidate in tiny_candidates:
        profile = CalibrationProfile.load(candidate.path / "profile.json")
        assert profile.reference.source is ReferenceSource.PROVISIONAL


def test_the_profile_belongs_to_the_graph_on_disk(tiny_candidates):
    for candidate in tiny_candidates:
        graph = load_graph(candidate.path / "model.pt2")
        profile = profile_of(candidate)
        quantizers = QuantizedGraph(graph).quantizers

        profile.require_fits([one.name for one in quantizers], fingerprint_of(graph))
        for one in quantizers:
            point = profile.points[one.name]
            assert point.clip_bound == one.bound
            assert point.observed_bound.units == 512
            assert point.sketch.absmax == pytest.approx(point.observed_bound.value)
        assert profile.instrument is Instrument.RANGE
        assert profile.fingerprint.data


@pytest.mark.slow
def test_the_two_sources_agree_where_they_saw_the_same_values(tiny_candidates):
    candidates = by_id(tiny_candidates)
    sampled = profile_of(candidates["samples-mse"])
    sketched = profile_of(candidates["sketch-mse"])

    for name, point in sampled.points.items():
        assert sketched.points[name].clip_bound == point.clip_bound
        assert sketched.points[name].observed_bound.value == point.observed_bound.value
    assert sketched.fingerprint.weights == sampled.fingerprint.weights


@pytest.mark.slow
def test_absmax_covers_what_percentiles_cut(tiny_candidates):
    candidates = by_id(tiny_candidates)
    widest = profile_of(candidates["samples-absmax"]).points["stem:input"]
    cut = profile_of(candidates["samples-percentile"]).points["stem:input"]

    expected = estimate_range(widest.sketch, Estimator.ABSMAX)
    assert widest.clip_bound.hi == pytest.approx(expected.hi, abs=widest.clip_bound.scale)
    assert cut.clip_bound.hi - cut.clip_bound.lo < widest.clip_bound.hi - widest.clip_bound.lo


@pytest.mark.slow
def test_candidates_survive_json(tiny_candidates):
    for candidate in tiny_candidates:
        document = json.loads(json.dumps(record_document(candidate)))
        assert read_record(Candidate, document, source="here") == candidate


@pytest.mark.slow
def test_an_error_of_the_child_is_one_sentence_and_leaves_nothing(tiny_contract, tmp_path):
    contract = dataclasses.replace(tiny_contract, factory="nowhere_at_all:f")

    with pytest.raises(ContractError, match="the module nowhere_at_all cannot be imported"):
        recalibrate(contract, tmp_path / "made")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("changes", [{"samples": None}, {"estimators": ()}])
def test_nothing_to_do_is_an_error_before_a_child_starts(tiny_contract, tmp_path, changes):
    with pytest.raises(ConfigurationError, match="nothing to recalibrate from"):
        recalibrate(tiny_contract, tmp_path, **changes)


def test_the_parent_imports_neither_torch_nor_user_code():
    code = "import sys, calidrift_analyzer.recalibrate; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "False"


class Run:
    """The child's job in this process, where its arguments can be seen."""

    def __init__(self, contract, folder):
        self.request = {
            "contract": record_document(contract),
            "directory": str(folder),
            "estimators": ["mse"],
            "calibration": True,
            "samples": [],
            "production": None,
        }
        self.seen = []

    def __call__(self, **changes):
        from calidrift_analyzer.recalibrate._job import run

        answer = run({**self.request, **changes}, lambda *step: self.seen.append(step))
        return [read_record(Candidate, one, source="here") for one in answer["candidates"]]


@pytest.fixture
def job(tiny_contract, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = torch.get_num_threads()
    yield Run(tiny_contract, tmp_path / "made")
    torch.set_num_threads(before)
    sys.modules.pop("tiny_user", None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"factory": "tiny_user:example_inputs"}, "but must return a torch.nn.Module"),
        ({"calibration": "tiny_user:evaluate"}, "calibration .*raised TypeError"),
    ],
)
def test_misbehaving_user_code_is_one_sentence(job, tiny_contract, tmp_path, changes, told):
    with pytest.raises(ContractError, match=told):
        job(contract=record_document(dataclasses.replace(tiny_contract, **changes)))
    assert not (tmp_path / "made").exists()


def test_a_sketch_of_another_model_names_the_missing_point(job):
    sketch = MagnitudeSketch()
    sketch.update(np.ones(3, np.float32))
    production = {"units": 3, "sketches": {"other:input": sketch.to_mapping()}}

    with pytest.raises(NoDataError, match="the point stem:input has no finite values"):
        job(calibration=False, production=production)


def test_the_job_tells_every_step_and_writes_both_files(job):
    (candidate,) = job()

    assert [step[1:] for step in job.seen] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert {path.name for path in candidate.path.iterdir()} == {"model.pt2", "profile.json"}


def test_a_candidate_replaces_one_of_the_same_name(job):
    (first,) = job()
    (first.path / "left_over").touch()

    (second,) = job()

    assert second.path == first.path
    assert not (second.path / "left_over").exists()


def test_selected_requests_widen_what_the_calibration_set_missed(job, tiny_contract, capture):
    night = dataclasses.replace(tiny_contract, calibration="tiny_user:by_night")
    contract = record_document(night)
    bright = 40.0 * torch.ones(1, 8, 8).numpy()

    (narrow,) = job(contract=contract)
    (wide,) = job(contract=contract, samples=[str(capture({"arg0": bright[None]}))])

    def bound(candidate):
        return profile_of(candidate).points["stem:input"].observed_bound

    assert wide.units == narrow.units + 1
    assert profile_of(wide).points["stem:input"].observed_bound.value == 40.0
    assert profile_of(wide).fingerprint.data != ""
    assert bound(wide).value == 40.0


def test_the_production_reference_is_its_own_bound(job):
    (candidate,) = job()
    profile = profile_of(candidate)
    production = {
        "units": 77,
        "sketches": {name: p.sketch.to_mapping() for name, p in profile.points.items()},
    }

    (sketched,) = job(calibration=False, production=production)

    assert sketched.source is Source.SKETCH
    assert sketched.units == 77
    for point in profile_of(sketched).points.values():
        assert point.observed_bound.units == 77
        assert point.observed_bound.value == point.sketch.absmax


def test_a_model_that_fails_on_a_batch_names_the_batch(job, capture):
    wrong = capture({"arg0": torch.zeros(1, 1, 7, 7).numpy()})

    with pytest.raises(ContractError, match=r"calibration .*on calibration batch 9"):
        job(samples=[str(wrong)])


def test_production_takes_the_range_instrument_alone(traffic):
    from calidrift_analyzer.records import ModelTotals, PointTotals

    window = traffic.unit_window(1, [np.ones((5, 4))], [2.0])
    point = PointTotals("a:input", window.counts[0], window.values[0], window.cells[0])

    def totals(instrument):
        return ModelTotals("net", "digest", instrument, (point,), window.requests)

    production = Production.of_totals(totals(Instrument.RANGE))
    assert production.units == int(point.counts[CountColumn.UNITS]) == 5
    assert production.sketches["a:input"].absmax == 1.0
    with pytest.raises(ConfigurationError, match="measured with the instrument clip"):
        Production.of_totals(totals(Instrument.CLIP))
