import copy
import pickle

import pytest

from calidrift_agent._profile import CalibrationProfile, ClipBound, Fingerprint, PointProfile
from calidrift_agent._vocabulary import Instrument
from calidrift_agent.errors import AttachError, ConfigurationError, ProfileMismatchError

# --- contents ---------------------------------------------------------------------------------


def test_points_are_read_only_and_keep_their_order(full):
    with pytest.raises(TypeError):
        full.points["new"] = None
    assert list(full.points) == ["stem:input", "head:input", "dead:input", "fc:input"]


def test_points_are_found_by_name_and_alias(full):
    assert full.find("fc2:input") is full.find("fc:input") is full.points["fc:input"]
    assert full.find("nothing") is None


def test_unobserved_points_are_listed(full):
    assert full.unobserved == ("dead:input",)


def test_profiles_can_be_copied_and_pickled(full):
    assert pickle.loads(pickle.dumps(full)) == full
    assert copy.deepcopy(full) == full


def test_any_difference_is_another_digest(full, observed, make_profile):
    assert full.digest != observed.digest
    again = make_profile(full.points.values(), units=3, instrument=Instrument.CLIP)
    assert again.digest != full.digest


def test_a_point_under_another_name_is_refused(observed):
    with pytest.raises(ConfigurationError, match="filed under"):
        CalibrationProfile(
            points={"other": observed.points["stem:input"]},
            units=1,
            instrument=Instrument.RANGE,
            fingerprint=Fingerprint(),
            created=observed.created,
        )


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_impossible_rail_rates_are_refused(rate):
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        PointProfile("a", rail_high_rate=rate)


# --- merge ------------------------------------------------------------------------------------


def test_ranges_and_observations_become_one_profile_in_either_order(ranges, observed):
    merged = ranges.merge(observed)
    assert merged == observed.merge(ranges)
    assert list(merged.points) == list(ranges.points)
    stem = merged.points["stem:input"]
    assert stem.clip_bound == ranges.points["stem:input"].clip_bound
    assert stem.observed_bound == observed.points["stem:input"].observed_bound
    assert stem.sketch == observed.points["stem:input"].sketch
    assert merged.units == observed.units


def test_observations_are_found_under_an_alias_of_either_side(ranges, observed, make_profile):
    merged = ranges.merge(observed)
    expected = observed.points["head:input"].observed_bound
    assert merged.points["block.add:input"].observed_bound == expected
    shared = PointProfile("other:input", observed_bound=expected, aliases=("stem:input",))
    other = ranges.merge(make_profile([shared], units=1))
    assert other.points["stem:input"].observed_bound == expected


def test_the_model_is_that_of_the_ranges_and_the_data_that_of_the_observations(ranges, observed):
    merged = ranges.merge(observed).fingerprint
    assert (merged.weights, merged.graph, merged.isa, merged.data) == ("cc", "dd", "avx2", "set")


def test_two_sets_of_observations_are_a_conflict(observed, full):
    with pytest.raises(ProfileMismatchError, match="both profiles hold observations"):
        observed.merge(full)


def test_two_sets_of_ranges_are_a_conflict(ranges):
    with pytest.raises(ProfileMismatchError, match="neither profile holds observations"):
        ranges.merge(ranges)


def test_observations_need_ranges(observed, make_profile):
    with pytest.raises(ProfileMismatchError, match="neither profile holds clip ranges"):
        observed.merge(make_profile([PointProfile("stem:input")]))


def test_differing_ranges_are_named(full, make_profile):
    bound = ClipBound.of_quantizer(9.0, 0, 0, 255, "uint8")
    other = make_profile([PointProfile("fc:input", bound)])
    with pytest.raises(ProfileMismatchError, match="clip range for fc:input"):
        other.merge(full)
    same = make_profile([PointProfile("fc:input", full.points["fc:input"].clip_bound)])
    assert same.merge(full).points["fc:input"].rail_low_rate == 1 / 3


def test_profiles_of_two_networks_are_a_conflict(ranges, make_profile, observed):
    stranger = PointProfile("z", observed_bound=observed.points["stem:input"].observed_bound)
    with pytest.raises(ProfileMismatchError, match="no point in common"):
        ranges.merge(make_profile([stranger], units=1))


def test_two_preprocessings_are_a_conflict(make_profile, observed, ranges):
    one = make_profile(observed.points.values(), units=2, preprocessing="v1")
    two = make_profile(ranges.points.values(), preprocessing="v2")
    with pytest.raises(ProfileMismatchError, match=r"different preprocessing \(v2 and v1\)"):
        one.merge(two)


# --- require_fits -----------------------------------------------------------------------------


def test_a_profile_fits_its_own_points_in_any_order(full):
    full.require_fits(reversed(list(full.points)), full.fingerprint)


def test_missing_and_foreign_points_are_named(observed):
    with pytest.raises(ProfileMismatchError) as caught:
        observed.require_fits(["stem:input", "tail:input"])
    message = str(caught.value)
    assert "lacks tail:input" in message
    assert "dead:input, head:input, which the model has not" in message
    assert "Calibrate" in message


def test_long_lists_of_names_are_cut(observed):
    with pytest.raises(ProfileMismatchError, match="and 95 more"):
        observed.require_fits([*observed.points, *(f"p{number}:input" for number in range(100))])


@pytest.mark.parametrize("field", ["weights", "graph"])
def test_another_model_is_named(observed, field):
    with pytest.raises(ProfileMismatchError, match=f"made with other {field}"):
        observed.require_fits(observed.points, Fingerprint(**{field: "ff"}))


def test_unknown_fingerprints_data_versions_and_cpu_do_not_matter(observed):
    other = Fingerprint(weights="aa", data="else", versions={"torch": "3"}, isa="neon")
    observed.require_fits(observed.points, other)


# --- from_pt2e --------------------------------------------------------------------------------


def test_ranges_of_a_graph(tiny_int8):
    profile = CalibrationProfile.from_pt2e(tiny_int8.graph)
    assert list(profile.points)[:2] == ["stem:input", "block.conv1:input"]
    assert profile.points["block.conv1:input"].aliases == ("block.skip:input",)
    assert all(point.clip_bound for point in profile.points.values())
    assert profile.unobserved == tuple(profile.points)
    assert profile.units == 0
    assert profile.instrument is Instrument.RANGE
    assert CalibrationProfile.from_json(profile.to_json()) == profile


@pytest.mark.parametrize("given", ["model", None])
def test_what_is_not_a_graph_has_no_ranges(given):
    with pytest.raises(AttachError):
        CalibrationProfile.from_pt2e(given)


def test_an_eager_model_has_no_ranges(tiny_cnn):
    with pytest.raises(AttachError, match="convert_pt2e"):
        CalibrationProfile.from_pt2e(tiny_cnn)
