"""A real quantized graph, the real agent: from ranges only to counted exceedances."""

import sys

import pytest
import torch

from calidrift_agent import CalibrationProfile, WatchOptions, calibrate, watch
from calidrift_agent._vocabulary import CountColumn, ValueColumn
from calidrift_analyzer.assess import AssessRules, assess_stored
from calidrift_analyzer.backend import PreparedModel
from calidrift_analyzer.collect import collect
from calidrift_analyzer.config import AnalyzerConfig
from calidrift_analyzer.cycle import LearnOptions, learn_reference
from calidrift_analyzer.ranges import Estimator
from calidrift_analyzer.records import Verdict
from calidrift_analyzer.store import Store

WINDOWS, PER_WINDOW = 6, 10


@pytest.fixture(scope="module")
def graph(tiny_contract):
    """The tiny network, prepared for quantization, and its user code."""
    sys.path.insert(0, str(tiny_contract.root))
    try:
        import tiny_user
    finally:
        sys.path.remove(str(tiny_contract.root))
    torch.set_num_threads(1)
    prepared = PreparedModel(tiny_user.factory(), tiny_user.example_inputs())
    return prepared, tiny_user


def serve(graph, data, profile, state, scale=1.0, seed=0):
    """Sixty requests of one row; returns what the agent counted."""
    generator = torch.Generator().manual_seed(seed)
    options = WatchOptions(budget=None, window_seconds=86_400.0, seed=0)
    with watch(
        graph, name="tiny", profile=profile, state_dir=state, sample_rate=1.0, options=options
    ) as watching:
        for _ in range(WINDOWS):
            for _ in range(PER_WINDOW):
                seed = int(torch.randint(1 << 30, (), generator=generator))
                graph(data(2, seed)[0] * scale)
            watching.flush()
        return watching.snapshot()[1]


@pytest.mark.slow
def test_ranges_become_a_reference_and_exceedances_are_counted(graph, tmp_path):
    prepared, user = graph
    measured = calibrate(prepared.convert(), user.calibration())
    sketches = {n: p.sketch for n, p in measured.points.items() if p.sketch is not None}
    served = prepared.convert(prepared.estimate(sketches, Estimator.ABSMAX))
    ranges = CalibrationProfile.from_pt2e(served)
    state = tmp_path / "state"
    config = AnalyzerConfig(database=tmp_path / "x.duckdb", state_dirs=(state,), models={})

    total = serve(served, user.data, ranges, state, seed=1)
    assert not total.counts[:, CountColumn.UNITS].any()  # nothing to compare with
    assert (total.counts[:, CountColumn.UNITS_MEASURED] == WINDOWS * PER_WINDOW).all()

    target = tmp_path / "learned.json"
    options = LearnOptions(units=55, output=target)
    found = learn_reference(config, "tiny", options)
    assert (found.units, found.bounds, found.unobserved) == (60, len(ranges.points), ())
    learned = CalibrationProfile.load(target)
    bounds = [one.observed_bound.value for one in learned.points.values()]
    assert bounds == total.values[:, ValueColumn.UNIT_HIGHEST].tolist()

    calm = serve(served, user.data, learned, state, seed=2)
    assert (calm.counts[:, CountColumn.UNITS] == WINDOWS * PER_WINDOW).all()
    assert calm.counts[:, CountColumn.EXCEEDANCES].max() <= 5
    drifted = serve(served, user.data, learned, state, scale=4.0, seed=3)
    assert drifted.counts[0, CountColumn.EXCEEDANCES] >= 30

    with Store.open(config.database) as store:
        collect(config.state_dirs, store)
        assessment = assess_stored(
            store, "tiny", profile=learned.digest, rules=AssessRules(learning_floor=0.9)
        )
    assert assessment.burn_in is None
    assert assessment.verdict is Verdict.DRIFTED_HARMFUL
    assert assessment.alarm is not None
