"""The table `[grafana]` and its variables."""

import pytest

from calidrift_analyzer.config import GrafanaConfig, load_config
from calidrift_analyzer.errors import ConfigurationError


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "calidrift.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_without_the_table_there_are_defaults(file):
    assert load_config(file(""), variables={}).grafana == GrafanaConfig()


def test_every_key_has_a_variable_that_wins(file, tmp_path):
    keys = {
        "url": "https://grafana.example.org/g",
        "folder": "ml",
        "datasource": "prom",
        "receiver": "on call",
        "page_url": "http://page.example.org",
        "runbook_url": "https://wiki.example.org/r",
    }
    text = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
    path = file(f'[grafana]\n{text}token_file = "secrets/token"\n')

    found = load_config(path, variables={}).grafana
    assert found == GrafanaConfig(**keys, token_file=tmp_path / "secrets/token")

    variables = {f"CALIDRIFT_GRAFANA__{key.upper()}": value for key, value in keys.items()}
    variables["CALIDRIFT_GRAFANA__TOKEN_FILE"] = "/run/token"
    found = load_config(file('[grafana]\nfolder = "x"\n'), variables=variables).grafana
    assert {key: getattr(found, key) for key in keys} == keys
    assert str(found.token_file) == "/run/token"


def test_the_token_comes_from_its_variable_and_is_never_shown(file):
    found = load_config(file(""), variables={"CALIDRIFT_GRAFANA_TOKEN": " glsa_1 "})

    assert found.grafana.token == "glsa_1"
    assert "glsa_1" not in repr(found)


def test_a_token_has_no_place_in_the_file(file):
    with pytest.raises(ConfigurationError, match="unknown key 'token'"):
        load_config(file('[grafana]\ntoken = "glsa_1"\n'), variables={})


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('url = "grafana:3000"', "begins with http"),
        ('url = "http://a:b@grafana"', "without a name or password"),
        ('folder = "a b"', "up to 40 letters"),
        ('runbook_url = "a#b"', "without '#'"),
        ("receiver = 3", "contact point"),
    ],
    ids=["url", "password", "folder", "runbook", "receiver"],
)
def test_a_bad_value_is_told_with_what_is_allowed(line, told, file):
    with pytest.raises(ConfigurationError, match=told):
        load_config(file(f"[grafana]\n{line}\n"), variables={})
