"""`[models.NAME.canary]`: absent, with defaults, and one sentence for what it cannot be."""

import pytest

from calidrift_analyzer.config import CanaryConfig, load_config
from calidrift_analyzer.errors import ConfigurationError

MODEL = """
[models.net]
factory = "user:factory"
example_inputs = "user:example_inputs"
calibration = "user:calibration"
evaluate = "user:evaluate"
"""


@pytest.fixture
def load(tmp_path):
    def made(text, **variables):
        path = tmp_path / "calidrift.toml"
        path.write_text(MODEL + text, encoding="utf-8")
        return load_config(path, variables=variables).models["net"].canary

    return made


def test_there_is_none_by_default(load):
    assert load("") is None


def test_an_empty_table_has_defaults(load):
    assert load("[models.net.canary]") == CanaryConfig(units=1_000, hours=24.0)


def test_both_keys_and_their_variables(load):
    assert load("[models.net.canary]\nunits = 50\nhours = 2") == CanaryConfig(units=50, hours=2.0)
    name = "CALIDRIFT_MODELS__NET__CANARY__"
    assert load("", **{f"{name}UNITS": "60"}) == CanaryConfig(units=60)
    text = "[models.net.canary]\nunits = 50"
    assert load(text, **{f"{name}HOURS": "0.5"}) == CanaryConfig(units=50, hours=0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("units = 19", r"models.net.canary.units is 19; allowed is a whole number of units from"),
        ("units = 10.5", r"models.net.canary.units is 10.5; allowed is a whole number of units"),
        ('units = "50"', r"models.net.canary.units is '50'; allowed is a whole number of units"),
        ("hours = 0", r"models.net.canary.hours is 0; allowed is a number of hours above 0"),
        ("hours = 721", r"canary.hours is 721; allowed is a number of hours above 0, at most 720"),
        ("hours = nan", r"canary.hours is nan; allowed is a number of hours above 0"),
        ("unit = 50", r"unknown key 'unit' in \[models.net.canary\]; did you mean 'units'\?"),
    ],
    ids=str,
)
def test_what_it_cannot_be_is_told_in_one_sentence(load, text, message):
    with pytest.raises(ConfigurationError, match=message):
        load(f"[models.net.canary]\n{text}")


def test_it_is_a_table(load):
    with pytest.raises(ConfigurationError, match="allowed is a table with units = 1000"):
        load("canary = 5")


def test_a_variable_that_is_no_number_and_one_of_no_key(load):
    with pytest.raises(ConfigurationError, match="CANARY__UNITS is 'many'; allowed is a whole"):
        load("", CALIDRIFT_MODELS__NET__CANARY__UNITS="many")
    with pytest.raises(ConfigurationError, match="CALIDRIFT_MODELS__NET__CANARY names no key"):
        load("", CALIDRIFT_MODELS__NET__CANARY="1")
