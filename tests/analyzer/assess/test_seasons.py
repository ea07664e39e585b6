"""Hours of the day and days of the week, against the calendar of the standard library."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np

from calidrift_agent._state import Window
from calidrift_analyzer.assess._seasons import seasons
from calidrift_analyzer.records import ModelHistory, Season
from calidrift_analyzer.store import Landmarks, Retention

HOUR = 3_600 * 10**9
MONDAY = int(datetime(2027, 1, 18, tzinfo=UTC).timestamp()) * 10**9


def history(end_ns, units, outside):
    units = np.array(units, np.int64)
    empty = np.zeros((units.size, 0), np.int64)
    return ModelHistory(
        model="net",
        profile="p",
        points=(),
        end_ns=np.array(end_ns, np.int64),
        seen=units,
        request_units=units,
        request_covered=units - np.array(outside, np.int64),
        units=empty,
        exceedances=empty,
    )


def test_units_count_for_the_hour_and_the_day_in_which_their_window_ends():
    rng = np.random.default_rng(0)
    ends = np.sort(MONDAY + rng.integers(1, 15 * 24 * HOUR, 2_000))
    units = rng.integers(0, 20, ends.size)
    outside = rng.binomial(units, 0.1)
    found = seasons(history(ends, units, outside))

    hours, days = Counter(), Counter()
    for end, count, left in zip(ends, units, outside, strict=True):
        moment = datetime.fromtimestamp((int(end) - 1) / 1e9, UTC)
        hours[moment.hour] += np.array([count, left])
        days[moment.weekday()] += np.array([count, left])
    assert found.hours == tuple(Season(h, *map(int, hours[h])) for h in range(24))
    assert found.weekdays == tuple(Season(d, *map(int, days[d])) for d in range(7))


def test_a_window_that_ends_on_the_hour_belongs_to_the_hour_before():
    ends = [MONDAY + HOUR, MONDAY + 26 * HOUR]
    found = seasons(history(ends, [10, 10], [1, 0]))
    assert [season.slot for season in found.hours] == [0, 1]
    assert found.worst_hour == Season(0, 10, 1)
    assert found.worst_hour.share == 0.1


def test_the_worst_hour_is_one_that_is_known_to_be_bad():
    """Three of three units are a share of 100 %, and hardly anything is known about that hour."""
    ends = [MONDAY + hour * HOUR + 1 for hour in (0, 2, 5, 30)]
    found = seasons(history(ends, [3, 400, 500, 10], [3, 300, 20, 0]))
    assert found.worst_hour.slot == 2
    # Planted mutant: the largest share.
    assert max(found.hours, key=lambda one: one.share).slot == 0


def test_a_day_for_hours_and_a_week_for_days():
    hourly = [MONDAY + hour * HOUR for hour in range(1, 12 * 24)]
    for count, has_hours, has_days in [(20, False, False), (30, True, False), (200, True, True)]:
        found = seasons(history(hourly[:count], [5] * count, [0] * count))
        assert (found is not None) is has_hours
        assert bool(found and found.weekdays) is has_days
    assert found.worst_hour is None
    assert found.worst_weekday is None
    assert seasons(history([], [], [])) is None
    # Windows without units do not span a day.
    assert seasons(history(hourly[:50], [0] * 49 + [5], [0] * 50)) is None


def test_folding_makes_the_hours_of_a_daily_collection_one(store, traffic):
    """What the documentation of retention says; with hourly collection the hours would stay."""
    meta = traffic.meta()
    for day in range(3):
        windows = []
        for hour in range(24):
            made = traffic.random_window(24 * day + hour)
            fields = {name: getattr(made, name) for name in made.__slots__}
            end = MONDAY + (24 * day + hour) * HOUR + 60 * 10**9
            windows.append(Window(**{**fields, "start_ns": end - 10**9, "end_ns": end}))
        store.ingest(meta, windows, batch=day + 1)
        store._connection.rows(
            "UPDATE batches SET arrived = make_timestamp_ns($ns) WHERE batch = $batch",
            {"ns": MONDAY + (day + 1) * 24 * HOUR, "batch": day + 1},
        )
    before = seasons(store.history("net", ""))
    assert len(before.hours) == 24
    spans = dict.fromkeys(("windows", "minutes", "hours", "days"), timedelta(days=1))
    store.retain(Retention(**spans), lambda *_: Landmarks(), now_ns=MONDAY + 99 * 24 * HOUR)
    after = seasons(store.history("net", ""))
    assert [one.slot for one in after.hours] == [23]
    assert after.hours[0].units == sum(one.units for one in before.hours)
