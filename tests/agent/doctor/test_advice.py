import re

import pytest

from calidrift_agent._doctor import advise
from calidrift_agent._vocabulary import Strategy
from calidrift_agent._watch import CostEstimate, Reference, ReferenceUnits, units_for


def only(found) -> str:
    (sentence,) = advise(found)
    return sentence


def test_where_all_is_well_nothing_is_advised(found):
    assert advise(found()) == ()


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"observed_calls": 0, "observed": ()}, "Nothing was observed"),
        ({"errors": {"shadow": 3}}, r"shadow: 3\). Set CALIDRIFT_STRICT=1"),
        ({"dropped": {"stateful_call": 2}}, "stateful_call: 2"),
        ({"training": True}, "call eval"),
        ({"strategy": Strategy.EDGES}, "reference="),
        ({"observed": ("conv:input",)}, r"1 of 2 points never fired \(fc:input\)"),
        ({"reference": Reference.NONE, "references": ()}, "run calibrate"),
        ({"references": (ReferenceUnits(3, 3),)}, "Nothing can ever be told"),
        ({"traffic": None}, "Give --traffic"),
        ({"traffic": 0.01}, "days to detect"),
        ({"cost": CostEstimate(2)}, "could not be measured"),
        (
            {"cost": CostEstimate(2, own_seconds=1.0, forward_seconds=0.01)},
            "only one request in 10,000",
        ),
    ],
)
def test_each_finding_has_its_sentence(found, changes, wanted):
    assert re.search(wanted, only(found(**changes)))


def test_a_reference_that_is_too_small_says_how_many_units_suffice(found):
    sentence = only(found(references=(ReferenceUnits(1, 512),) * 2))
    needed = units_for(0.01, 2)
    assert f"on {needed:,} random units" in sentence
    enough = found(references=(ReferenceUnits(1, needed),) * 2, traffic=1e6)
    assert advise(enough) == ()
    short = found(references=(ReferenceUnits(1, needed - 1),) * 2, traffic=1e6)
    assert "Nothing below" in only(short)


def test_many_points_belong_into_a_sidecar(found):
    points = tuple(f"p{number}" for number in range(70))
    assert "64 of the 70" in only(found(points=points, observed=points))
    assert "p0, p1, p2, p3, p4 and 65 more" in advise(found(points=points, observed=()))[0]
