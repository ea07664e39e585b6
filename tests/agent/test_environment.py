"""The agent's variables: a closed set of words, and never an effect at import."""

from pathlib import Path

import pytest

from calidrift_agent import _environment
from calidrift_agent._environment import Environment, read
from calidrift_agent.errors import ConfigurationError


@pytest.mark.parametrize("word", ["1", "true", "YES", " on "])
def test_words_that_switch_the_agent_off(word):
    assert read({"CALIDRIFT_DISABLED": word}).disabled


@pytest.mark.parametrize("word", ["", "0", "False", "no", "off"])
def test_words_that_leave_the_agent_on(word):
    assert not read({"CALIDRIFT_DISABLED": word}).disabled


@pytest.mark.parametrize("word", ["2", "ture", "disabled", "nope"])
def test_any_other_word_is_refused_with_the_allowed_ones(word):
    with pytest.raises(ConfigurationError) as caught:
        read({"CALIDRIFT_DISABLED": word})

    assert f"CALIDRIFT_DISABLED is {word!r}" in str(caught.value)
    assert "allowed are 1, true, yes, on and 0, false, no, off" in str(caught.value)


def test_nothing_set_means_defaults():
    assert read({}) == Environment(disabled=False, state_dir=None)


def test_a_state_folder_is_a_path():
    assert read({"CALIDRIFT_STATE_DIR": " /run/calidrift "}).state_dir == Path("/run/calidrift")


def test_the_process_environment_is_the_default(monkeypatch):
    monkeypatch.setenv(_environment.CALIDRIFT_STATE_DIR, "/run/here")

    assert read().state_dir == Path("/run/here")


def test_a_replica_can_be_marked_as_a_canary():
    assert read({"CALIDRIFT_CANARY": "yes"}).canary
    assert not read({}).canary
    with pytest.raises(ConfigurationError, match="CALIDRIFT_CANARY is 'first'; allowed are 1"):
        read({"CALIDRIFT_CANARY": "first"})
