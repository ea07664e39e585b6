"""`[models.NAME.deploy]`: a command or an address, and one sentence for what is neither."""

import pytest

from calidrift_analyzer.config import load_config
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
        return load_config(path, variables=variables).models["net"].deploy

    return made


def test_there_is_none_by_default(load):
    assert load("") is None


def test_a_command(load):
    found = load('[models.net.deploy]\ncommand = ["deploy", "--now"]\ntimeout_seconds = 5.0')

    assert found.command == ("deploy", "--now")
    assert found.url is None
    assert (found.timeout_seconds, found.give_up_seconds) == (5.0, 900.0)


def test_an_address_with_its_secret_below_the_file(load, tmp_path):
    found = load('[models.net.deploy]\nurl = "https://ci.example/go?x=1"\nsecret_file = "s"')

    assert (found.url, found.command) == ("https://ci.example/go?x=1", ())
    assert found.secret_file == tmp_path / "s"


def test_every_key_has_a_variable(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "CALIDRIFT_MODELS__NET__DEPLOY__"
    by_url = {f"{name}URL": "http://ci.example", f"{name}SECRET_FILE": "elsewhere"}

    found = load("", **by_url, **{f"{name}GIVE_UP_SECONDS": "12"})

    assert (found.url, found.give_up_seconds) == ("http://ci.example", 12.0)
    assert found.secret_file == tmp_path / "elsewhere"
    assert load("", **{f"{name}COMMAND": '["a b", "c:d"]'}).command == ("a b", "c:d")
    with pytest.raises(ConfigurationError, match="written as a JSON list of texts"):
        load("", **{f"{name}COMMAND": "a b"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "allowed is a table with either command"),
        ('command = ["a"]\nurl = "http://x"\nsecret_file = "s"', "either command"),
        ('url = "http://x"', "together with secret_file"),
        ('command = ["a"]\nsecret_file = "s"', "either command"),
        ('command = "deploy --now"', "models.net.deploy.command is 'deploy --now'; allowed is a"),
        ("command = []", "allowed is a list of non-empty texts"),
        ('command = ["a", ""]', "allowed is a list of non-empty texts"),
        ('command = ["a\\u0000b"]', "allowed is a list of non-empty texts"),
        ('url = "ftp://x"\nsecret_file = "s"', "begins with http:// or https://"),
        ('url = "https://me:pw@x"\nsecret_file = "s"', "without a name or password"),
        ('command = ["a"]\ntimeout_seconds = 0.0', "a number of seconds above 0"),
        ('comand = ["a"]', "unknown key 'comand' in [models.net.deploy]; did you mean 'command'?"),
    ],
    ids=lambda text: text.split("=")[0].strip() or "empty",
)
def test_what_cannot_be_is_told_in_a_sentence(load, text, told):
    with pytest.raises(ConfigurationError) as caught:
        load("[models.net.deploy]\n" + text)

    assert told in str(caught.value)
    assert "calidrift.toml" in str(caught.value)
    assert "\n" not in str(caught.value)
