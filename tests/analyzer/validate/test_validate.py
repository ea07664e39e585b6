"""Validation from end to end, with real kernels."""

import dataclasses
import json
import sys

import pytest
import torch

from calidrift_analyzer.errors import (
    ChildError,
    ConfigurationError,
    ContractError,
    ToolchainError,
)
from calidrift_analyzer.records import (
    GateName,
    ValidationReport,
    read_record,
    record_document,
)
from calidrift_analyzer.validate import validate

LAYERS = ["stem", "block.conv1", "block.conv2", "head"]


def gates(report):
    return {gate.name: gate for gate in report.gates}


def change(contract, **changes):
    if "evaluate" in changes:
        changes["evaluate"] = f"tiny_user:{changes['evaluate']}"
    return dataclasses.replace(contract, **changes)


@pytest.fixture(scope="module")
def report(tiny_contract, tiny_candidates):
    return validate(tiny_contract, tiny_candidates)


@pytest.mark.slow
def test_a_good_recalibration_passes(report, tiny_candidates):
    assert report.passed, report.refusals
    assert report.refusals == ()
    assert report.labelled
    assert report.scores[0].id == report.candidate.id
    assert {score.id for score in report.scores} == {one.id for one in tiny_candidates}
    metrics = [(score.metric, score.sqnr_db) for score in report.scores]
    assert metrics == sorted(metrics, reverse=True)


@pytest.mark.slow
def test_the_kernels_are_those_of_the_plan(report):
    assert [(one.name, one.planned, one.found) for one in report.kernels.layers] == [
        (name, 1, 1) for name in LAYERS
    ]
    assert (report.kernels.planned, report.kernels.found) == (4, 4)
    assert gates(report)[GateName.KERNELS].passed


@pytest.mark.slow
def test_the_figures_are_those_of_the_report_split(report):
    accuracy = report.accuracy
    assert accuracy.samples == 200
    assert accuracy.fp32.estimate > 0.85
    for figure in (accuracy.fp32, accuracy.int8, accuracy.difference):
        assert figure.low <= figure.estimate <= figure.high
    assert accuracy.difference.estimate == pytest.approx(
        accuracy.int8.estimate - accuracy.fp32.estimate
    )
    assert {one.name for one in accuracy.segments} == {"day", "night"}
    assert report.agreement > 0.97
    assert 20 < report.sqnr_db < 60
    assert report.bulk_sqnr_db is not None
    assert report.parity_db is None or report.parity_db > report.sqnr_db


@pytest.mark.slow
def test_sizes_are_those_of_the_tensors_and_of_the_file(report, tiny_contract):
    sizes = report.sizes
    weights = 16 * 9 + 2 * 16 * 16 * 9 + 4 * 1024
    channels = 3 * 16 + 4
    assert sizes.fp32_bytes == 4 * weights
    assert sizes.int8_bytes == weights + channels * (4 + 1)
    assert sizes.int8_file_bytes == (report.candidate.path / "model.pt2").stat().st_size
    assert sizes.fp32_file_bytes > sizes.fp32_bytes


@pytest.mark.slow
def test_held_out_requests_are_the_rows_of_gate_and_report(report):
    assert report.coverage.units == 400
    assert 0.9 < report.coverage.lower < report.coverage.ratio <= 1.0


@pytest.mark.slow
def test_latency_is_measured_in_pairs(report):
    assert report.latency.rows == 16
    assert report.latency.rounds == 30
    assert report.latency.ratio.low <= report.latency.ratio.estimate <= report.latency.ratio.high
    assert min(report.latency.fp32_ms, report.latency.int8_ms) > 0


@pytest.mark.slow
def test_the_report_survives_json(report):
    document = json.loads(json.dumps(record_document(report), allow_nan=False))

    assert read_record(ValidationReport, document, source="here") == report


@pytest.mark.slow
def test_without_freezing_the_gate_stays_closed(tiny_contract, tiny_candidates):
    """Accuracy, parity and even latency would let this model pass: it runs in float."""
    refused = validate(tiny_contract, tiny_candidates[:1], freezing=False)

    found = gates(refused)
    assert not refused.passed
    assert not found[GateName.KERNELS].passed
    assert refused.kernels.found == 0
    assert refused.kernels.missing == tuple(LAYERS)
    assert refused.latency is None
    assert found[GateName.ACCURACY].passed
    assert found[GateName.PARITY].passed
    assert "0 of 4 planned INT8 kernels" in refused.refusals[0]


class Run:
    """The child's job in this process."""

    def __init__(self, contract, candidates):
        self.contract = contract
        self.candidates = candidates
        self.seen = []

    def __call__(self, contract=None, candidates=None):
        from calidrift_analyzer.validate._job import run

        request = {
            "contract": record_document(contract or self.contract),
            "candidates": [record_document(one) for one in candidates or self.candidates],
            "freezing": True,
        }
        document = run(request, lambda *step: self.seen.append(step))
        return read_record(ValidationReport, document, source="here")


@pytest.fixture
def job(tiny_contract, tiny_candidates, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = torch.get_num_threads()
    yield Run(tiny_contract, tiny_candidates[:1])
    torch.set_num_threads(before)
    sys.modules.pop("tiny_user", None)


@pytest.mark.slow
def test_without_labels_agreement_with_fp32_is_judged_and_said(job, tiny_contract):
    found = job(change(tiny_contract, evaluate="without_labels"))

    assert found.passed, found.refusals
    assert not found.labelled
    assert found.accuracy is None
    assert {GateName.AGREEMENT, GateName.SQNR} <= set(gates(found))
    assert "there are no labels" in gates(found)[GateName.SQNR].sentence
    assert found.scores[0].metric > 0.9
    done, total = job.seen[-1][1:]
    assert done == total - 1 or done == total


@pytest.mark.slow
def test_a_calibration_set_of_nights_is_refused_for_days(job, tiny_contract, tmp_path):
    from calidrift_analyzer.ranges import Estimator
    from calidrift_analyzer.recalibrate import recalibrate

    night = change(tiny_contract, calibration="tiny_user:by_night")
    narrow = recalibrate(night, tmp_path, estimators=[Estimator.ABSMAX])

    found = job(candidates=narrow)

    assert not found.passed
    coverage = gates(found)[GateName.COVERAGE]
    assert not coverage.passed
    assert found.coverage.ratio < 0.6
    assert "select more uncovered samples" in coverage.sentence


@pytest.mark.slow
def test_limits_of_the_contract_close_the_gate(job, tiny_contract):
    found = job(change(tiny_contract, min_size_ratio=3.99, coverage_target=0.9999))

    closed = {gate.name for gate in found.gates if not gate.passed}
    assert closed == {GateName.SIZE, GateName.COVERAGE}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("evaluate", "told"),
    [
        ("raises", r"evaluate \(tiny_user:raises\) raised RuntimeError .*the labels are gone"),
        ("never_runs", "never called the model on the split select"),
        ("moody", "evaluate scores 101 samples for one model and 104 for another"),
        ("deaf", "evaluate ran the same samples on two splits: all 200 of the split select are"),
    ],
)
def test_an_evaluation_that_misbehaves_is_one_sentence(job, tiny_contract, evaluate, told):
    with pytest.raises(ContractError, match=told):
        job(change(tiny_contract, evaluate=evaluate))


@pytest.mark.slow
def test_an_evaluation_that_kills_the_child_is_one_sentence(tiny_contract, tiny_candidates):
    with pytest.raises(ChildError, match="was killed by SIGKILL"):
        validate(change(tiny_contract, evaluate="kills"), tiny_candidates[:1])


@pytest.mark.slow
def test_a_missing_compiler_is_found_before_any_user_code_runs(
    tiny_contract, tiny_candidates, monkeypatch
):
    monkeypatch.setenv("CXX", "/nowhere/g++")

    with pytest.raises(ToolchainError, match=r"no C\+\+ compiler works here .*/nowhere/g\+\+"):
        validate(change(tiny_contract, factory="nowhere_at_all:f"), tiny_candidates[:1])


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_candidate_that_is_not_what_was_written_is_named(job, tiny_candidates, tmp_path, damage):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_candidates[0].path, copy)
    path = copy / "model.pt2"
    path.write_bytes(path.read_bytes() + b"x") if damage == "changed" else path.unlink()
    told = "has changed since it was written" if damage == "changed" else "cannot be read"

    with pytest.raises(ContractError, match=rf"model\.pt2 of the candidate samples-absmax {told}"):
        job(candidates=[dataclasses.replace(tiny_candidates[0], path=copy)])


def test_no_candidate_is_an_error(tiny_contract):
    with pytest.raises(ConfigurationError, match="recalibrate first"):
        validate(tiny_contract, [])
