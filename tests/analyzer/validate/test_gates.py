"""Every gate opens where it should, and stays closed where a figure is missing."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.records import (
    GateName,
    HeldOutCoverage,
    KernelReport,
    LayerKernels,
    LayerKind,
    Sizes,
)
from calidrift_analyzer.validate._gates import Evidence, gates_of
from calidrift_analyzer.validate._statistics import sqnr_of

CONTRACT = ModelContract(
    name="net",
    root=Path("/"),
    factory="a:b",
    example_inputs="a:b",
    calibration="a:b",
    evaluate="a:b",
    registry=Path("/registry"),
)

GOOD = Evidence(
    fp32_accuracy=0.95,
    int8_accuracy=0.945,
    agreement=0.995,
    sqnr_db=35.0,
    simulated_sqnr_db=35.0,
    parity_db=60.0,
    identical=False,
    sizes=Sizes(1000, 3950, 2000, 5000),
    kernels=KernelReport(
        (
            LayerKernels("a", LayerKind.CONVOLUTION, 1, 1),
            LayerKernels("b", LayerKind.LINEAR, 1, 1),
        ),
        in_code=2,
    ),
    coverage=HeldOutCoverage(400, 398, 0.995, 0.984, "a:input", 400),
)
UNLABELLED = {"fp32_accuracy": None, "int8_accuracy": None}


def judge(**changes):
    return {gate.name: gate for gate in gates_of(dataclasses.replace(GOOD, **changes), CONTRACT)}


def test_a_good_candidate_passes_every_gate():
    gates = judge()

    assert list(gates) == [
        GateName.ACCURACY,
        GateName.SIZE,
        GateName.KERNELS,
        GateName.PARITY,
        GateName.COVERAGE,
    ]
    assert all(gate.passed for gate in gates.values())


@pytest.mark.parametrize(
    ("int8", "passed"), [(0.94, True), (0.95, True), (0.99, True), (0.9399, False), (0.0, False)]
)
def test_accuracy_may_fall_by_one_point_and_no_more(int8, passed):
    gate = judge(int8_accuracy=int8)[GateName.ACCURACY]

    assert gate.passed is passed
    assert f"INT8 accuracy is {int8:.4f}" in gate.sentence
    assert ("select more samples" in gate.sentence) is not passed


def test_without_labels_agreement_and_sqnr_stand_in_and_say_so():
    gates = judge(**UNLABELLED)

    assert {GateName.AGREEMENT, GateName.SQNR} <= set(gates)
    assert GateName.ACCURACY not in gates
    assert all("there are no labels" in gates[n].sentence for n in ("agreement", "sqnr"))
    assert all(gate.passed for gate in gates.values())


@pytest.mark.parametrize(
    ("changes", "closed"),
    [
        ({"agreement": 0.99}, set()),
        ({"agreement": 0.98}, {"agreement"}),
        ({"sqnr_db": 19.9}, {"sqnr"}),
        ({"sqnr_db": None, "parity_db": None, "identical": True}, {"sqnr"}),
        ({"agreement": None}, set()),
    ],
)
def test_the_gates_without_labels(changes, closed):
    gates = judge(**UNLABELLED, **changes)

    assert {gate.name for gate in gates.values() if not gate.passed} == closed


def test_outputs_that_are_no_scores_are_judged_by_sqnr_alone():
    assert GateName.AGREEMENT not in judge(**UNLABELLED, agreement=None)


@pytest.mark.parametrize(("fp32", "passed"), [(3900, True), (3899, False), (1000, False)])
def test_size(fp32, passed):
    assert judge(sizes=Sizes(1000, fp32, 1, 1))[GateName.SIZE].passed is passed


@pytest.mark.parametrize(
    ("kernels", "told"),
    [
        (KernelReport(()), "0 of 0"),
        (
            KernelReport((LayerKernels("a", LayerKind.LINEAR, 1, 0),)),
            "0 of 1 planned .*not in INT8: a;",
        ),
        (
            KernelReport(
                tuple(LayerKernels(f"l{i}", LayerKind.LINEAR, 1, 0) for i in range(8)), in_code=0
            ),
            "l0, l1, l2, l3, l4 and 3 more",
        ),
        (
            KernelReport((LayerKernels("a", LayerKind.LINEAR, 1, 1),), unattributed=2, in_code=3),
            "2 kernels belong to no planned layer",
        ),
        (
            KernelReport((LayerKernels("a", LayerKind.LINEAR, 1, 1),), in_code=5),
            "which has 5 kernel calls",
        ),
    ],
)
def test_kernels_that_are_not_the_plan_close_the_gate(kernels, told):
    gate = judge(kernels=kernels)[GateName.KERNELS]

    assert not gate.passed
    assert re.search(told, gate.sentence)


@pytest.mark.parametrize(
    ("parity", "sqnr", "identical", "passed"),
    [
        (60.0, 35.0, False, True),
        (32.5, 35.0, False, True),  # as far apart as two roundings of one model
        (31.5, 35.0, False, False),
        (41.0, 55.0, False, True),
        (39.0, 55.0, False, False),
        (None, 35.0, True, True),  # bit for bit
        (None, 35.0, False, False),  # not finite
        (41.0, None, False, True),
        (10.0, 5.0, False, True),
    ],
)
def test_parity(parity, sqnr, identical, passed):
    gate = judge(parity_db=parity, simulated_sqnr_db=sqnr, identical=identical)[GateName.PARITY]

    assert gate.passed is passed


@pytest.mark.parametrize("noise", [1.0, 30.0, 300.0])
def test_a_compiler_that_destroys_the_output_cannot_excuse_itself(noise):
    """The worse its output, the worse also its SQNR: that must not lower what is required."""
    rng = np.random.default_rng(0)
    fp32 = rng.normal(size=(500, 10))
    simulated = fp32 + 1e-3 * rng.normal(size=fp32.shape)
    compiled = simulated + noise * rng.normal(size=fp32.shape)
    gate = judge(
        sqnr_db=sqnr_of(fp32, compiled)[0],
        simulated_sqnr_db=sqnr_of(fp32, simulated)[0],
        parity_db=sqnr_of(simulated, compiled)[0],
    )[GateName.PARITY]

    assert not gate.passed
    assert gate.required == 40.0


@pytest.mark.parametrize(("lower", "passed"), [(0.95, True), (0.9499, False), (0.0, False)])
def test_coverage_is_judged_by_its_lower_bound(lower, passed):
    coverage = HeldOutCoverage(400, 399, 0.9975, lower, "a:input", 400)
    gate = judge(coverage=coverage)[GateName.COVERAGE]

    assert gate.passed is passed
    assert "399 of 400 held-out requests stay inside" in gate.sentence
    assert ("most often passed at a:input" in gate.sentence) is not passed


def test_a_reader_is_told_that_groups_are_counted_and_not_rows():
    gate = judge(coverage=HeldOutCoverage(100, 99, 0.99, 0.953, "a:input", 400))[GateName.COVERAGE]

    assert "99 of 100 held-out requests (one of each group of 400 rows) stay" in gate.sentence
