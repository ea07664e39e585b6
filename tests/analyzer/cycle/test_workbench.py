"""What one command leaves for the next one: complete, or a sentence that says what to run."""

import pytest

from calidrift_analyzer.cycle import (
    candidates_folder,
    load_candidates,
    load_report,
    save_candidates,
    save_report,
)
from calidrift_analyzer.errors import ConfigurationError, ContractError, NoDataError


@pytest.fixture
def made(site, stages):
    """The contract, one candidate, and the report about it."""
    candidates = stages.recalibrate(site.contract, candidates_folder(site.contract))
    return site.contract, candidates, stages.validate(site.contract, candidates)


def test_candidates_and_report_come_back_as_they_were(made):
    contract, candidates, report = made
    save_candidates(contract, candidates)
    path = save_report(contract, report)

    assert path.parent == candidates_folder(contract)
    assert load_candidates(contract) == candidates
    assert load_report(contract) == report


def test_new_candidates_make_an_earlier_validation_void(made):
    contract, candidates, report = made
    save_candidates(contract, candidates)
    save_report(contract, report)
    save_candidates(contract, candidates)

    with pytest.raises(NoDataError, match="run `calidrift validate net`"):
        load_report(contract)


def test_nothing_to_load_says_which_command_is_missing(site):
    with pytest.raises(NoDataError, match="run `calidrift recalibrate net`"):
        load_candidates(site.contract)


@pytest.mark.parametrize(
    ("text", "error"),
    [("not JSON", NoDataError), ("{}", ContractError), ("[]", ContractError)],
    ids=["cut", "empty", "foreign"],
)
def test_a_damaged_list_is_named(made, text, error):
    contract, candidates, _ = made
    save_candidates(contract, candidates)
    path = candidates_folder(contract) / "candidates.json"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(error, match=r"candidates\.json"):
        load_candidates(contract)


def test_a_registry_that_cannot_be_written_is_named(made):
    contract, candidates, _ = made
    (candidates_folder(contract) / ".candidates.json.tmp").mkdir()

    with pytest.raises(ConfigurationError, match="check the key registry"):
        save_candidates(contract, candidates)
