"""What goes wrong with Grafana is one sentence with the right status, and shows no token."""

import socket

import pytest

from calidrift_analyzer.dashboards import Grafana, Patience
from calidrift_analyzer.errors import ConfigurationError, GrafanaConflictError, GrafanaError

PATIENCE = Patience(attempts=3, first_seconds=0.0)
SECRET = "glsa_secret_987"


@pytest.fixture
def client(address, editor):
    """A client of the stand-in that does not wait."""
    with Grafana(address, editor, PATIENCE) as found:
        yield found


def refused(command, words, status=2):
    """Run a command that must fail, and give its one sentence."""
    found, out, err = command(*words)
    assert found == status, err
    assert out == ""
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def test_an_unknown_token(command, stand_in, address, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_GRAFANA_TOKEN", SECRET)

    told = refused(command, ["push", "--url", address])

    assert "401" in told
    assert "make a new one" in told
    assert SECRET not in told
    assert SECRET in stand_in.tokens


def test_a_token_that_may_only_read(command, stand_in, address, viewer, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_GRAFANA_TOKEN", viewer)

    assert "the role Editor" in refused(command, ["push", "--url", address])
    assert command("diff", "--url", address)[0] == 1


def test_nobody_listens(command, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_GRAFANA_TOKEN", SECRET)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

        told = refused(command, ["push", "--url", f"http://127.0.0.1:{port}"])

    assert "cannot be reached: no connection" in told


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/elsewhere", "is no Grafana"),
        ("/other", "is no Grafana"),
        ("/nothing", "check the address"),
        ("/moved", "redirects to https://grafana.example.org"),
    ],
    ids=["html", "json", "nothing", "moved"],
)
def test_something_else_answers(path, part, command, stand_in, address, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_GRAFANA_TOKEN", "glsa_editor_0123")

    assert part in refused(command, ["push", "--url", address + path])
    assert stand_in.writes == []


def test_a_grafana_below_a_path(command, stand_in, address, editor, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_GRAFANA_TOKEN", editor)

    assert command("push", "--url", f"{address}/below/")[0] == 0
    assert stand_in.dashboards


def test_a_grafana_that_stays_broken(command, stand_in, address, editor, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_GRAFANA_TOKEN", editor)
    stand_in.stumble(*[500] * 9)

    told = refused(command, ["diff", "--url", address])

    assert "answered 500 (try again later): it failed 5 times" in told
    assert len(stand_in.calls) == 5


@pytest.mark.parametrize(
    "body",
    [b"null", b'"a message of ours"', b"[]", b"[" * 200_000],
    ids=["null", "text", "list", "deep"],
)
def test_bodies_that_grafana_never_sends(body, client, stand_in):
    stand_in.stumble(*[body] * 3)

    with pytest.raises(GrafanaError):
        client.health()


def test_a_dashboard_from_a_provisioning_file(command, stand_in, address, editor, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_GRAFANA_TOKEN", editor)
    command("push", "--url", address)
    document, folder, _ = stand_in.dashboards["calidrift-fleet"]
    stand_in.dashboards["calidrift-fleet"] = ({**document, "title": "old"}, folder, True)

    told = refused(command, ["push", "--url", address])

    assert "has it from a provisioning file" in told


def test_rules_from_a_provisioning_file(command, stand_in, address, editor, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_GRAFANA_TOKEN", editor)
    command("push", "--url", address)
    group, _ = stand_in.groups["calidrift", "calidrift-traffic"]
    stand_in.groups["calidrift", "calidrift-traffic"] = ({**group, "rules": []}, "file")

    assert "has it from a provisioning file" in refused(command, ["push", "--url", address])


def test_a_body_that_grafana_does_not_take(client, stand_in):
    stand_in.add_folder({"uid": "calidrift", "title": "Calidrift"})

    with pytest.raises(GrafanaError, match=r"answered 400 .*unknown fields"):
        client.save_rule_group("calidrift", "g", {"title": "g", "surprise": 1})


def test_the_empty_answer_of_a_removal_is_success(client, stand_in):
    stand_in.groups["calidrift", "old"] = ({"title": "old", "rules": []}, "")

    assert client.remove_rule_group("calidrift", "old") is None
    assert stand_in.groups == {}
    with pytest.raises(GrafanaError, match="404"):
        client.remove_rule_group("calidrift", "old")


def test_a_folder_that_appears_meanwhile_is_as_good(client, stand_in):
    stand_in.add_folder({"uid": "calidrift", "title": "Ours"})

    client.create_folder("calidrift", "Calidrift")

    assert stand_in.folders["calidrift"]["title"] == "Ours"


def test_a_conflict_about_nothing_stays_a_conflict(client, stand_in):
    stand_in.stumble(409)

    with pytest.raises(GrafanaConflictError):
        client.create_folder("calidrift", "Calidrift")


def test_a_body_that_is_no_object(client, stand_in, monkeypatch):
    stand_in.dashboards["x"] = None
    monkeypatch.setattr(stand_in, "get_dashboard", lambda uid: [1])

    with pytest.raises(GrafanaError, match="is no Grafana"):
        client.dashboard("x")


@pytest.mark.parametrize(
    "url",
    ["ftp://grafana", "grafana:3000", "http://", "http://grafana:99999", "http://[::1"],
    ids=["scheme", "none", "no host", "port", "half"],
)
def test_an_address_that_is_none(url):
    with pytest.raises(ConfigurationError, match="--url"):
        Grafana(url, "token")


def test_an_address_with_a_password_is_refused(command):
    told = refused(command, ["push", "--url", "http://admin:hunter2@grafana"])

    assert "without a name or password" in told


def test_ipv6_and_timeouts_are_told(stand_in, monkeypatch):
    import requests

    with Grafana("http://[::1]:3000/g", "token", PATIENCE) as client:
        assert client._face.api.url == "http://[::1]:3000/g/api"

        def late(*args, **kwargs):
            raise requests.Timeout

        monkeypatch.setattr(client._face.api.s, "get", late)
        with pytest.raises(GrafanaError, match="no answer within 10 seconds"):
            client.health()

        def untrusted(*args, **kwargs):
            raise requests.exceptions.SSLError

        monkeypatch.setattr(client._face.api.s, "get", untrusted)
        with pytest.raises(GrafanaError, match="REQUESTS_CA_BUNDLE"):
            client.health()


def test_no_address_and_no_token(command, tmp_path):
    assert "no Grafana is named" in refused(command, ["push"])
    assert "no token of Grafana is given" in refused(command, ["push", "--url", "http://g"])


def test_nothing_to_do(command):
    assert "one of export, push, pull, diff" in refused(command, [])


@pytest.mark.parametrize(
    ("content", "part"),
    [(None, "cannot be read"), (b"\xff\xfe", "no ASCII"), (b" \n", "holds no token")],
    ids=["missing", "binary", "empty"],
)
def test_a_token_file_that_cannot_be_used(content, part, command, tmp_path):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)

    assert part in refused(command, ["push", "--url", "http://g", "--token-file", "token"])


def test_two_tokens_in_the_variable(command, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_GRAFANA_TOKEN", f"{SECRET} {SECRET}")

    told = refused(command, ["push", "--url", "http://g"])

    assert "CALIDRIFT_GRAFANA_TOKEN holds no token" in told
    assert SECRET not in told


def test_the_flag_beats_the_variable_and_both_beat_the_file(
    command, stand_in, address, editor, monkeypatch, tmp_path
):
    (tmp_path / "flag").write_text(editor + "\n", encoding="ascii")
    (tmp_path / "calidrift.toml").write_text(
        f'[grafana]\nurl = "{address}"\ntoken_file = "flag"\n', encoding="utf-8"
    )

    assert command("push")[0] == 0
    monkeypatch.setenv("CALIDRIFT_GRAFANA_TOKEN", SECRET)
    assert command("push")[0] == 2
    assert command("push", "--token-file", "flag")[0] == 0


def test_no_output_shows_the_token(command, stand_in, address, monkeypatch, editor):
    monkeypatch.setenv("CALIDRIFT_GRAFANA_TOKEN", editor)
    written = []
    for words in (["push"], ["diff"], ["pull"], ["push", "--json"], ["diff", "--debug"]):
        written += [str(part) for part in command(*words, "--url", address)]
    stand_in.stumble(*[403] * 5)
    written += [str(part) for part in command("push", "--debug", "--url", address)]

    assert editor not in "".join(written)
