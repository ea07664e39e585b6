import numpy as np
import pytest

from calidrift_analyzer.assess import assess_stored
from calidrift_analyzer.errors import NoDataError
from calidrift_analyzer.records import Verdict


def test_calm_traffic_before_does_not_hide_the_harm(bench, store):
    """Twenty calm units for each drifted one: the sum hardly moves, the drifted traffic does."""

    def uniform(units, width):
        return bench.traffic.rng.uniform(-width, width, (units, 64))

    bench.calibrate({"a:input": uniform(1024, 1.0), "b:input": uniform(1024, 1.0)})
    store.put_profile(bench.profile)
    bench.send(uniform(1000, 0.99), uniform(1000, 0.99), units_per_window=50)
    bench.send(uniform(50, 0.99), uniform(50, 1.03), units_per_window=5)
    diluted = bench.assess().points[0]
    found = assess_stored(store, "net")
    worst = found.points[0]
    assert worst.name == "b:input"
    assert diluted.sqnr_change_db > -1 > worst.sqnr_change_db
    assert diluted.verdict is Verdict.DRIFTED_HARMLESS
    assert worst.verdict is Verdict.DRIFTED_HARMFUL
    assert worst.units == 1050
    # The twenty calm windows have the numbers 0 to 19 and last a second each.
    begin = bench.traffic.unit_window(20, [np.zeros((1, 1))], [None]).start_ns
    assert worst.alarm.since_ns == begin
    assert found.alarm.observed - 1000 <= 50


def test_drift_from_the_first_unit_begins_at_the_beginning(bench, store):
    bench.calibrate({"a:input": bench.normal(256)})
    store.put_profile(bench.profile)
    bench.send(bench.normal(50, scale=3.0))
    assert assess_stored(store, "net").alarm.since_ns == 0


def test_the_latest_profile_is_assessed(bench, store, traffic):
    bench.calibrate({"a:input": bench.normal(256)})
    store.put_profile(bench.profile)
    bench.send(bench.normal(10))
    old = bench.profile.digest
    bench.calibrate({"a:input": bench.normal(256)})
    bench.send(bench.normal(10))
    assert assess_stored(store, "net").profile == bench.profile.digest
    assert assess_stored(store, "net").verdict is Verdict.NO_REFERENCE
    assert assess_stored(store, "net", profile=old).verdict is Verdict.NOT_DRIFTED


def test_an_unknown_model_is_named(bench, store):
    with pytest.raises(NoDataError, match="no model has windows yet"):
        assess_stored(store, "net")
    bench.calibrate({"a:input": bench.normal(16)})
    bench.send(bench.normal(5))
    with pytest.raises(NoDataError, match="recorded are: net"):
        assess_stored(store, "nett")
