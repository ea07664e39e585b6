"""The cycle goes as far as it must and no further, and keeps what it decided."""

import json

import pytest

from calidrift_agent import CalibrationProfile
from calidrift_agent._registry import open_version
from calidrift_analyzer.cycle import (
    CycleOptions,
    load_candidates,
    load_report,
    run_cycle,
)
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.ranges import Estimator
from calidrift_analyzer.records import Verdict
from calidrift_analyzer.store import Store

DRIFT = 3.0


def test_calm_traffic_ends_with_its_assessment(site, stages):
    site.serve()

    outcome = run_cycle(site.config)

    assert outcome.assessment.verdict is Verdict.NOT_DRIFTED
    assert outcome.sentence == outcome.assessment.sentence
    assert (outcome.selection, outcome.candidates, outcome.report, outcome.version) == (
        None,
        (),
        None,
        None,
    )
    assert not outcome.refused
    assert stages.busy == []


def test_before_the_first_window_there_is_no_data_and_no_error(site, stages):
    outcome = run_cycle(site.config)

    assert outcome.assessment.verdict is Verdict.NO_DATA
    with Store.open(site.config.database) as store:
        assert store.outcomes.assessments("net") == ()


def test_drift_goes_all_the_way_and_every_decision_is_kept(site, stages):
    site.serve()
    site.serve(DRIFT, segment="night")
    steps = []

    outcome = run_cycle(site.config, "net", progress=lambda what, done, total: steps.append(what))

    assert outcome.assessment.verdict is Verdict.DRIFTED_HARMFUL
    assert outcome.version.id == "000001-abc"
    assert outcome.sentence == "version 000001-abc (sketch-mse) serves from now on"
    assert not outcome.refused
    assert set(outcome.selection.by_segment) == {"night"}
    assert 0 < len(outcome.selection.ids) <= 8
    assert len(stages.samples) == len(outcome.selection.ids)
    assert all(path.is_file() for path in stages.samples)
    assert stages.production.units == 120
    assert stages.estimators == tuple(Estimator)
    assert steps[:2] == ["collecting", "selecting"]
    with Store.open(site.config.database) as store:
        kept = store.outcomes
        assert kept.assessments("net")[0].verdict == "drifted_harmful"
        assert [row.accepted for row in kept.validations("net")] == [True]
        assert json.loads(kept.validations("net")[0].document)["candidate"]["id"] == "sketch-mse"
        assert [(row.version, row.action) for row in kept.versions("net")] == [
            ("000001-abc", "promoted")
        ]
        assert store.profile(outcome.version.profile) is not None


def test_the_database_is_free_while_children_work(site, stages, is_held):
    site.serve(DRIFT)

    run_cycle(site.config)

    assert stages.busy == [False, False]
    with Store.open(site.config.database):
        assert is_held(site.config.database), "the test can see a database that is held"


def test_the_commands_find_what_the_cycle_wrote(site, stages):
    site.serve(DRIFT)

    outcome = run_cycle(site.config)

    assert load_candidates(site.contract) == outcome.candidates
    assert load_report(site.contract) == outcome.report


def test_a_refused_candidate_changes_nothing_and_says_why(site, stages):
    site.serve(DRIFT)
    stages.passed = False

    outcome = run_cycle(site.config)

    assert outcome.refused
    assert outcome.version is None
    assert stages.promoted == 0
    assert outcome.sentence == (
        "candidate sketch-mse was refused and nothing was changed: accuracy fell by 3 points"
    )
    with Store.open(site.config.database) as store:
        assert [row.accepted for row in store.outcomes.validations("net")] == [False]
        assert store.outcomes.versions("net") == ()


def test_promotion_can_be_left_to_a_person(site, stages):
    site.serve(DRIFT)

    outcome = run_cycle(site.config, options=CycleOptions(promote=False))

    assert (outcome.version, outcome.refused, stages.promoted) == (None, False, 0)
    assert outcome.sentence == "candidate sketch-mse passed every gate and waits for a promotion"


def test_a_calm_model_is_recalibrated_when_forced(site, stages):
    site.serve()
    options = CycleOptions(force=True, estimators=(Estimator.KL,))

    outcome = run_cycle(site.config, options=options)

    assert outcome.assessment.verdict is Verdict.NOT_DRIFTED
    assert outcome.version is not None
    assert stages.estimators == (Estimator.KL,)


def test_forced_without_traffic_it_uses_the_calibration_set_alone(site, stages):
    outcome = run_cycle(site.config, options=CycleOptions(force=True))

    assert (stages.production, stages.samples, outcome.selection) == (None, (), None)


def test_without_captures_the_sketches_must_do(site, stages):
    site.serve(DRIFT, capture=False)

    outcome = run_cycle(site.config)

    assert outcome.selection is None
    assert stages.samples == ()
    assert stages.production is not None
    assert outcome.version is not None


def test_a_model_that_is_not_declared_is_refused(site):
    with pytest.raises(ConfigurationError, match="nett"):
        run_cycle(site.config, "nett")


@pytest.mark.slow
def test_the_real_stages_repair_a_real_model(tiny_contract, tmp_path):
    """Calibrated by night, served by day and night: nothing is replaced by a stand-in."""
    from dataclasses import replace
    from types import MappingProxyType

    import torch

    from calidrift_agent import CaptureOptions, WatchOptions, request_context, watch
    from calidrift_analyzer.backend import load_graph
    from calidrift_analyzer.config import AnalyzerConfig
    from calidrift_analyzer.recalibrate import recalibrate

    contract = replace(
        tiny_contract, registry=tmp_path / "registry", calibration="tiny_user:by_night"
    )
    (stale,) = recalibrate(contract, tmp_path / "stale", estimators=[Estimator.ABSMAX])
    graph = load_graph(stale.path / "model.pt2")
    patterns = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(11)
    with watch(
        graph,
        name="tiny",
        profile=CalibrationProfile.load(stale.path / "profile.json"),
        state_dir=tmp_path / "state",
        sample_rate=1.0,
        capture=CaptureOptions(seed=0),
        options=WatchOptions(budget=None, window_seconds=3600.0, seed=0),
    ):
        for turn in range(400):
            scale = 3.0 if turn % 2 else 1.0
            noise = 0.5 * torch.randn(1, 1, 8, 8, generator=generator)
            with request_context(segment="day" if turn % 2 else "night"), torch.no_grad():
                graph((patterns[turn % 4] + noise) * scale)
    config = AnalyzerConfig(
        database=tmp_path / "calidrift.duckdb",
        state_dirs=(tmp_path / "state",),
        models=MappingProxyType({"tiny": contract}),
    )

    outcome = run_cycle(config, options=CycleOptions(estimators=(Estimator.MSE, Estimator.ABSMAX)))

    assert outcome.assessment.verdict is Verdict.DRIFTED_HARMFUL
    assert outcome.version is not None, outcome.sentence
    assert open_version(contract.registry, "tiny").id == outcome.version.id
    assert {one.id for one in outcome.candidates} == {
        "samples-mse",
        "samples-absmax",
        "sketch-mse",
        "sketch-absmax",
    }
