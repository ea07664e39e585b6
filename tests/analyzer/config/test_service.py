"""The table `[service]`: defaults, paths, variables, and a sentence for every mistake."""

import dataclasses

import pytest

from calidrift_analyzer.config import Mode, ServiceConfig, load_config
from calidrift_analyzer.errors import ConfigurationError


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        path = tmp_path / "calidrift.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_defaults_of_the_file_are_those_of_the_dataclass(file):
    assert load_config(file(""), variables={}).service == ServiceConfig()


def test_every_key_of_the_dataclass_can_be_set(file):
    text = """
[service]
host = "0.0.0.0"
port = 1
tokens = "etc/tokens.toml"
certificate = "c.pem"
key = "/k.pem"
mode = "auto"
own_alarms = false
ingest_seconds = 1.5
assess_seconds = 2.5
retention_seconds = 3.5
revalidate_seconds = 0.0
publish_seconds = 4.5
cool_down_seconds = 0.0
daily_cap = 0
max_body_bytes = 2048
requests_per_minute = 9
"""
    path = file(text)

    found = load_config(path, variables={}).service

    assert found == ServiceConfig(
        host="0.0.0.0",
        port=1,
        tokens=path.parent / "etc" / "tokens.toml",
        certificate=path.parent / "c.pem",
        key=type(path)("/k.pem"),
        mode=Mode.AUTO,
        own_alarms=False,
        ingest_seconds=1.5,
        assess_seconds=2.5,
        retention_seconds=3.5,
        revalidate_seconds=0.0,
        publish_seconds=4.5,
        cool_down_seconds=0.0,
        daily_cap=0,
        max_body_bytes=2048,
        requests_per_minute=9,
    )
    for field in dataclasses.fields(ServiceConfig):
        assert f"\n{field.name} = " in text


def test_flags_win_over_variables_and_those_over_the_file(file, tmp_path):
    path = file("[service]\nport = 1\nmode = 'off'\nhost = 'a'\n")
    variables = {
        "CALIDRIFT_SERVICE__PORT": "2",
        "CALIDRIFT_SERVICE__MODE": "auto",
        "CALIDRIFT_SERVICE__TOKENS": "t.toml",
        "CALIDRIFT_SERVICE__ASSESS_SECONDS": "5",
        "CALIDRIFT_SERVICE_PORT": "9999",  # of Kubernetes
        "CALIDRIFT_SERVICE_HOST": "10.0.0.1",
    }

    found = load_config(path, flags={"service.port": 3, "service.host": None}, variables=variables)

    assert (found.service.port, found.service.mode, found.service.host) == (3, Mode.AUTO, "a")
    assert found.service.tokens == tmp_path / "t.toml"
    assert found.service.assess_seconds == 5.0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("port = 70000", "service.port is 70000; allowed is a port from 0"),
        ("port = '1'", "service.port is '1'; allowed is a port from 0"),
        ("mode = 'maybe'", "service.mode is 'maybe'; allowed is one of 'propose', 'auto'"),
        ("ingest_seconds = 0.0", "allowed is a number of seconds above 0"),
        ("daily_cap = -1", "allowed is a whole number from 0"),
        ("max_body_bytes = 10", "allowed is a number of bytes from 1024"),
        ("prot = 1", "unknown key 'prot' in [service]; did you mean 'port'?"),
    ],
    ids=range(7),
)
def test_a_mistake_is_told_with_its_remedy(text, told, file):
    with pytest.raises(ConfigurationError) as caught:
        load_config(file(f"[service]\n{text}\n"), variables={})

    assert told in str(caught.value)


def test_a_key_at_the_wrong_place_and_a_bad_variable_are_told(file):
    with pytest.raises(ConfigurationError, match=r"it belongs below \[service\]"):
        load_config(file("cool_down_seconds = 1.0\n"), variables={})
    with pytest.raises(ConfigurationError, match="CALIDRIFT_SERVICE__PORT is 'x'"):
        load_config(file(""), variables={"CALIDRIFT_SERVICE__PORT": "x"})
