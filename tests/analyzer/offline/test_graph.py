"""Recorded inputs through the INT8 graph of a version or a candidate."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from calidrift_analyzer.offline import OfflineOptions, assess_inputs, find_sources
from calidrift_analyzer.records import Verdict

pytestmark = pytest.mark.slow


@pytest.fixture
def restored(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    sys.modules.pop("tiny_user", None)


@pytest.fixture
def rows(tmp_path):
    """Patterns of the kind that the model was made for, and the same ten times as bright."""
    patterns = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    rng = np.random.default_rng(9)
    noise = 0.5 * rng.normal(size=(80, 1, 8, 8))
    calm = (patterns[np.arange(80) % 4] + noise) * np.where(np.arange(80) % 2, 3.0, 1.0)[
        :, None, None, None
    ]
    np.save(tmp_path / "calm.npy", calm.astype(np.float32))
    np.save(tmp_path / "bright.npy", 10 * calm.astype(np.float32))
    return tmp_path


def test_without_its_quantizers_and_then_as_it_serves(
    tiny_contract, tiny_candidates, here, rows, restored
):
    candidate = next(one for one in tiny_candidates if one.id == "samples-absmax")
    options = OfflineOptions(profile=candidate.path / "profile.json")

    calm = assess_inputs(tiny_contract, find_sources(rows / "calm.npy"), options=options)
    bright = assess_inputs(tiny_contract, find_sources(rows / "bright.npy"), options=options)

    assert calm.ran == "the INT8 graph without its activation quantizers"
    assert calm.assessment.units == 80
    assert calm.assessment.request_coverage.estimate > 0.9
    assert bright.assessment.request_coverage.estimate == 0.0
    stem = bright.assessment.point("stem:input")
    # Without activation quantizers ten times the input is ten times what the stem reads.
    assert stem.highest == pytest.approx(10 * calm.assessment.point("stem:input").highest)
    assert stem.clipped_energy > 0.3, "measured in the graph as it serves"
    assert calm.assessment.point("stem:input").clipped_energy < 0.01
    behind = bright.assessment.point("block.conv1:input")
    assert behind.exceedances == 80
    assert behind.clipped_energy < stem.clipped_energy, "little is left to clip behind the stem"


def test_the_version_in_service_is_the_default(
    tiny_contract, tiny_candidates, here, rows, restored, tmp_path
):
    from calidrift_agent._registry import open_version
    from calidrift_analyzer.promote import promote

    contract = replace(tiny_contract, registry=tmp_path / "registry")
    candidate = next(one for one in tiny_candidates if one.id == "samples-absmax")
    promote(candidate, accepted(candidate), contract.registry, contract.name)
    version = open_version(contract.registry, contract.name)

    report = assess_inputs(contract, find_sources(rows / "bright.npy"))

    assert report.profile_from == f"version {version.id}, which is in service"
    assert report.ran == "the INT8 graph without its activation quantizers"
    assert report.assessment.verdict in (Verdict.DRIFTED_HARMFUL, Verdict.LEARNING)
    assert len(report.outside) == 80


def accepted(candidate):
    """A report that promotes, about this candidate."""
    from calidrift_analyzer.records import (
        Gate,
        GateName,
        HeldOutCoverage,
        KernelReport,
        LayerKernels,
        LayerKind,
        Sizes,
        ValidationReport,
    )

    return ValidationReport(
        model=candidate.model,
        created="2030-01-01T00:00:00+00:00",
        candidate=candidate,
        scores=(),
        labelled=True,
        gates=(Gate(GateName.ACCURACY, True, 0.0, 0.01, "as it should be"),),
        accuracy=None,
        agreement=1.0,
        sqnr_db=40.0,
        bulk_sqnr_db=40.0,
        parity_db=80.0,
        sizes=Sizes(1000, 3950, 2000, 5000),
        kernels=KernelReport((LayerKernels("stem", LayerKind.LINEAR, 1, 1),), in_code=1),
        coverage=HeldOutCoverage(100, 100, 1.0, 0.97, "", 100),
        latency=None,
        seconds=1.0,
    )
