"""One window of rows, against plain numpy."""

import numpy as np
import pytest
import torch

from calidrift_agent._points import Frame
from calidrift_agent._vocabulary import CountColumn, RequestColumn, ValueColumn
from calidrift_analyzer.offline._recorder import UnitWindow

NAMES = ("a:input", "b:input")


@pytest.fixture
def profile(traffic):
    """Bounds 1 and 2, clip ranges of the same size."""
    return traffic.profile({"a:input": np.full((8, 4), 1.0), "b:input": np.full((8, 4), 2.0)})


def closed(window, segments):
    return window.window(3, (10, 20), segments)


def test_units_exceedances_and_sketches(profile):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 5, 4)), 3 * rng.normal(size=(6, 4))
    window = UnitWindow(NAMES, profile, Frame(6))
    window.observe(0, torch.from_numpy(a))
    window.observe(1, torch.from_numpy(b))
    found = closed(window, ["x", "x", "y", None, "y", "y"])
    above = np.stack([np.abs(a).max(axis=(1, 2)) > 1, np.abs(b).max(axis=1) > 2])
    assert found.counts[:, CountColumn.UNITS].tolist() == [6, 6]
    assert found.counts[:, CountColumn.ROWS].tolist() == [6, 6]
    assert found.counts[:, CountColumn.EXCEEDANCES].tolist() == above.sum(axis=1).tolist()
    assert found.counts[:, CountColumn.ELEMENTS].tolist() == [120, 24]
    assert found.cells.sum(axis=1).tolist() == [120, 24]
    assert found.values[0, ValueColumn.LOWEST] == np.float32(a.min())
    assert found.values[1, ValueColumn.HIGHEST] == np.float32(b.max())
    covered = ~above.any(axis=0)
    assert found.requests[RequestColumn.UNITS] == 6
    assert found.requests[RequestColumn.UNITS_COVERED] == covered.sum()
    assert [(one.name, one.units, one.covered) for one in found.segments] == [
        ("x", 2, covered[:2].sum()),
        ("y", 3, covered[[2, 4, 5]].sum()),
    ]
    assert (found.number, found.start_ns, found.end_ns) == (3, 10, 20)
    np.testing.assert_allclose(window.absmax[0], np.abs(a).max(axis=(1, 2)), rtol=1e-6)


def test_what_is_not_finite_exceeds_every_bound(profile):
    window = UnitWindow(NAMES, profile, Frame(3))
    window.observe(0, torch.tensor([[0.5], [float("nan")], [float("-inf")]]))
    found = closed(window, [None] * 3)
    assert found.counts[0, CountColumn.EXCEEDANCES] == 2
    assert found.counts[0, CountColumn.NAN] == 1
    assert found.counts[0, CountColumn.INF] == 1
    assert found.requests[RequestColumn.UNITS_COVERED] == 1


def test_a_point_that_did_not_fire_has_no_units(profile):
    window = UnitWindow(NAMES, profile, Frame(2))
    window.observe(0, torch.ones(2, 4))
    found = closed(window, [None, None])
    assert found.counts[:, CountColumn.UNITS].tolist() == [2, 0]
    assert found.values[1, ValueColumn.HIGHEST] == -np.inf


def test_a_point_that_fires_twice_has_the_larger_maximum(profile):
    window = UnitWindow(NAMES, profile, Frame(2))
    window.observe(0, torch.tensor([[0.1], [3.0]]))
    window.observe(0, torch.tensor([[5.0], [0.2]]))
    assert window.absmax[0].tolist() == [5.0, 3.0]
    assert closed(window, [None, None]).counts[0, CountColumn.UNITS] == 2


def test_padding_counts_nowhere(profile):
    mask = np.array([[True, False], [True, True], [False, False]])
    window = UnitWindow(NAMES, profile, Frame(3, 2, {2: mask}))
    values = torch.tensor([[[0.5], [9.0]], [[0.25], [0.75]], [[9.0], [9.0]]])
    window.observe(0, values)
    window.observe_clip(0, values)
    found = closed(window, ["s", "s", "s"])
    assert found.counts[0, CountColumn.UNITS] == 2
    assert found.counts[0, CountColumn.EXCEEDANCES] == 0
    assert found.counts[0, CountColumn.ELEMENTS] == 3
    assert found.counts[0, CountColumn.CLIP_ELEMENTS] == 3
    assert found.values[0, ValueColumn.HIGHEST] == 0.75
    assert [(one.units, one.covered) for one in found.segments] == [(2, 2)]


def test_what_a_clip_range_cuts_off(profile):
    clip = profile.points["b:input"].clip_bound
    values = torch.tensor([[-3.0, 0.0, 1.0], [clip.hi + 1.0, clip.hi + clip.scale / 4, 0.0]])
    window = UnitWindow(NAMES, profile, Frame(2))
    window.observe_clip(1, values)
    found = closed(window, [None, None])
    counts, sums = found.counts[1], found.values[1]
    assert counts[CountColumn.CLIP_ELEMENTS] == 6
    assert (counts[CountColumn.CLIP_LOW], counts[CountColumn.CLIP_HIGH]) == (1, 1)
    beyond = [clip.lo + 3.0, 1.0, clip.scale / 4]
    assert sums[ValueColumn.CLIPPED_ENERGY] == pytest.approx(sum(one**2 for one in beyond))
    assert sums[ValueColumn.ENERGY] == pytest.approx(float(values.double().square().sum()))


@pytest.mark.parametrize("tensor", [torch.ones(2, 3, dtype=torch.long), torch.ones(2, 0)])
def test_what_has_no_range_is_passed_over(profile, tensor):
    window = UnitWindow(NAMES, profile, Frame(2))
    window.observe(0, tensor)
    window.observe_clip(0, tensor)
    assert not closed(window, [None, None]).counts.any()


def test_a_point_that_the_profile_does_not_know_has_no_bound(profile):
    window = UnitWindow(("new:input",), profile, Frame(2))
    window.observe(0, torch.ones(2, 3))
    window.observe_clip(0, torch.ones(2, 3))
    found = closed(window, ["s", "s"])
    assert found.counts[0, CountColumn.UNITS] == 0
    assert found.counts[0, CountColumn.ROWS] == 2
    assert found.requests[RequestColumn.UNITS] == 0
    assert found.segments == ()


def test_a_unit_at_its_bound_is_inside_and_the_next_number_is_not(profile):
    bound = np.float32(profile.points["a:input"].observed_bound.value)
    window = UnitWindow(NAMES, profile, Frame(2))
    window.observe(0, torch.tensor([[bound], [np.nextafter(bound, np.float32(9))]]))
    assert closed(window, [None, None]).counts[0, CountColumn.EXCEEDANCES] == 1


def test_a_row_of_nothing_but_padding_is_no_unit_of_what_all_rows_share(profile):
    mask = np.array([[True, True], [False, False]])
    window = UnitWindow(NAMES, profile, Frame(2, 2, {2: mask}))
    window.observe(0, torch.full((3, 5), 9.0))  # belongs to both rows together
    found = closed(window, ["s", "s"])
    assert found.counts[0, CountColumn.UNITS] == 1
    assert found.requests[RequestColumn.UNITS] == 1
    assert [(one.units, one.covered) for one in found.segments] == [(1, 0)]
