"""Where reference units come from: kept on disk, without changing profiles that say nothing."""

import json
import pickle
from dataclasses import replace

import pytest

from calidrift_agent._profile import CalibrationProfile, ReferenceOrigin
from calidrift_agent._vocabulary import ReferenceSource
from calidrift_agent.errors import ConfigurationError, ProfileFormatError

LEARNED = ReferenceOrigin(
    source=ReferenceSource.PRODUCTION,
    learned_from="ab" * 32,
    began="2030-01-31T12:00:00+00:00",
    ended="2030-01-31T13:00:00+00:00",
)
PROVISIONAL = ReferenceOrigin(source=ReferenceSource.PROVISIONAL)


def test_a_calibration_set_is_taken_to_be_random(full):
    assert full.reference.source is ReferenceSource.CALIBRATION
    assert full.reference.is_random
    assert LEARNED.is_random
    assert not PROVISIONAL.is_random


def test_a_profile_that_says_nothing_is_written_as_before(full):
    content = json.loads(full.to_json())
    assert content["version"] == 1
    assert "reference" not in content


@pytest.mark.parametrize("origin", [LEARNED, PROVISIONAL], ids=["production", "provisional"])
def test_the_round_trip_is_exact(full, tmp_path, origin):
    profile = replace(full, reference=origin)
    assert profile.digest != full.digest
    profile.save(tmp_path / "profile.json")
    again = CalibrationProfile.load(tmp_path / "profile.json")
    assert again == profile
    assert again.digest == profile.digest
    assert pickle.loads(pickle.dumps(profile)) == profile
    assert json.loads(profile.to_json())["version"] == 2


def test_taking_the_origin_out_of_the_text_is_noticed(full):
    content = json.loads(replace(full, reference=PROVISIONAL).to_json())
    del content["reference"]
    with pytest.raises(ProfileFormatError, match="does not match its own digest"):
        CalibrationProfile.from_json(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "guessed"}, "must be one of calibration, provisional, production"),
        ({"source": 3}, "must be a text"),
        ({"source": "production"}, "needs all three"),
        ({"learned_from": None}, "must be a text"),
    ],
    ids=["word", "type", "contradiction", "null"],
)
def test_a_wrong_origin_is_named(full, change, message):
    content = json.loads(replace(full, reference=PROVISIONAL).to_json())
    content["reference"].update(change)
    with pytest.raises(ProfileFormatError, match=message):
        CalibrationProfile.from_json(json.dumps(content))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learned_from": ""}, "needs all three"),
        ({"source": ReferenceSource.CALIBRATION}, "no other has any"),
        ({"began": "yesterday"}, "ISO 8601"),
        ({"ended": "2030-01-31T13:00:00"}, "ISO 8601"),
        ({"ended": "2030-01-31T11:00:00+00:00"}, "begin before it ends"),
    ],
    ids=["no digest", "calibration", "no time", "no offset", "backwards"],
)
def test_what_contradicts_itself_is_refused(fields, message):
    with pytest.raises(ConfigurationError, match=message):
        replace(LEARNED, **fields)


def test_merging_keeps_where_the_observations_come_from(observed, ranges):
    merged = ranges.merge(replace(observed, reference=PROVISIONAL))
    assert merged.reference == PROVISIONAL
