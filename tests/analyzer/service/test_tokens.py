"""Tokens: what counts as one, who may read their file, and who is let in."""

import hmac
import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from calidrift_analyzer.config import AnalyzerConfig, ServiceConfig, service_tokens
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.service import _tokens
from calidrift_analyzer.service._service import load_tokens
from calidrift_analyzer.service._tokens import Scope, TokenFile, Tokens

SECRET = "0123456789abcdef"
GOOD = f'[eye]\nsecret = "{SECRET}"\nscopes = ["read", "ingest"]\n'


def test_a_token_says_who_somebody_is_and_what_he_may(tokens_file):
    tokens = Tokens.load(tokens_file(GOOD), "")

    caller = tokens.bearer(SECRET)
    assert (caller.name, caller.scopes) == ("eye", frozenset({Scope.READ, Scope.INGEST}))
    assert tokens.bearer(SECRET + "0") is None
    assert tokens.bearer("") is None
    assert tokens.bearer("\ud800") is None
    assert len(tokens) == 1


def test_the_environment_brings_tokens_too(tokens_file):
    variable = "ci:read+trigger:fedcba9876543210, eye2:promote:fedcba9876543211"

    tokens = Tokens.load(tokens_file(GOOD), variable)

    assert len(tokens) == 3
    assert tokens.bearer("fedcba9876543210").scopes == {Scope.READ, Scope.TRIGGER}
    assert tokens.bearer("fedcba9876543211").name == "eye2"
    assert tokens.secret_for(Scope.PROMOTE) == "fedcba9876543211"
    assert service_tokens({"CALIDRIFT_TOKENS": "x"}) == "x"
    assert service_tokens({}) == ""


def test_a_token_ends(tokens_file):
    for_ever = datetime(2999, 1, 1, tzinfo=UTC)
    before = datetime.now(UTC) - timedelta(seconds=1)
    text = GOOD + "expires = {}\n"

    gone = Tokens.load(tokens_file(text.format(before.isoformat())), "")
    day = Tokens.load(tokens_file(text.format("2020-01-01")), "")
    local = Tokens.load(tokens_file(text.format("2020-01-01T00:00:00")), "")
    good = Tokens.load(tokens_file(text.format(for_ever.isoformat())), "")

    assert [one.bearer(SECRET) for one in (gone, day, local)] == [None] * 3
    assert gone.secret_for(Scope.READ) is None
    assert good.bearer(SECRET).name == "eye"


def test_every_token_is_compared_in_constant_time(tokens_file, monkeypatch):
    asked = []
    monkeypatch.setattr(
        _tokens.hmac, "compare_digest", lambda a, b: asked.append((len(a), len(b))) or a == b
    )
    tokens = Tokens.load(tokens_file(GOOD), "b:read:fedcba9876543210 c:read:fedcba9876543211")

    tokens.bearer(SECRET)
    tokens.bearer("x")

    assert asked == [(32, 32)] * 6, "all of them, each time, over digests of equal length"
    assert hmac.compare_digest is _tokens.hmac.compare_digest


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_file_that_others_may_read_is_refused(mode, tokens_file):
    path = tokens_file(GOOD, mode)

    with pytest.raises(ConfigurationError, match=rf"mode 0{mode:o}.*chmod 600 {path}"):
        Tokens.load(path, "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[a\n", "is not valid TOML"),
        ("a = 1\n", "must be a table [a]"),
        ("[a]\nsecret = 'x'\ncolour = 'red'\n", "must be a table [a]"),
        ("[a]\nscopes = ['read']\n", "at least 16 characters long"),
        ("[a]\nsecret = 'short'\nscopes = ['read']\n", "openssl rand -hex 32"),
        (f"[a]\nsecret = '{SECRET}'\nscopes = []\n", "must be some of read, trigger"),
        (f"[a]\nsecret = '{SECRET}'\nscopes = ['write']\n", "must be some of read, trigger"),
        (f"[a]\nsecret = '{SECRET}'\nscopes = 'read'\n", "must be some of read, trigger"),
        (f"['a b']\nsecret = '{SECRET}'\nscopes = ['read']\n", "a name that cannot be used"),
        (f"[a]\nsecret = '{SECRET}'\nscopes = ['read']\nexpires = 'soon'\n", "must be a date"),
        (f"[a]\nsecret = '{SECRET}'\nscopes = ['read']\nhmac = 1\n", "true or false"),
    ],
    ids=range(11),
)
def test_what_is_no_token_is_told_without_its_secret(text, told, tokens_file):
    with pytest.raises(ConfigurationError) as caught:
        Tokens.load(tokens_file(text), "")

    assert told in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", ["eye", "eye:read", "eye:read:short", "eye:all:0123456789abcdef"])
def test_a_variable_that_is_no_token_is_told_without_its_secret(text):
    with pytest.raises(ConfigurationError, match="CALIDRIFT_TOKENS"):
        Tokens.load(None, text)


def test_a_name_belongs_to_one_holder(tokens_file):
    with pytest.raises(ConfigurationError, match="'eye' is given twice"):
        Tokens.load(tokens_file(GOOD), "eye:read:fedcba9876543210")


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot be read \(No such file"):
        Tokens.load(tmp_path / "gone.toml", "")


def config(tmp_path, **told):
    return AnalyzerConfig(
        database=tmp_path / "d", state_dirs=(), models={}, service=ServiceConfig(**told)
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "analyzer.example"])
def test_without_tokens_only_this_machine_may_be_listened_to(host, tmp_path, monkeypatch):
    monkeypatch.delenv("CALIDRIFT_TOKENS", raising=False)

    with pytest.raises(ConfigurationError, match=f"would listen on {host} without any token"):
        load_tokens(config(tmp_path, host=host))
    monkeypatch.setenv("CALIDRIFT_TOKENS", "eye:read:0123456789abcdef")
    assert len(load_tokens(config(tmp_path, host=host)).current()) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_needs_none(host, tmp_path, monkeypatch):
    monkeypatch.delenv("CALIDRIFT_TOKENS", raising=False)

    assert not load_tokens(config(tmp_path, host=host)).guarded


READ = {"Authorization": f"Bearer {SECRET}"}


@pytest.fixture
def guarded(make_site, tokens_file):
    return make_site(
        tokens=tokens_file(GOOD + '[boss]\nsecret = "the-boss-knows-it-0"\nscopes = ["promote"]\n')
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/models"),
        ("GET", "/api/v1/audit"),
        ("GET", "/metrics"),
        ("POST", "/api/v1/jobs"),
        ("POST", "/api/v1/freezes"),
        ("POST", "/api/v1/jobs/1/approve"),
        ("POST", "/api/v1/models/net/rollback"),
        ("POST", "/api/v1/ingest"),
        ("POST", "/api/v1/webhooks/alertmanager"),
    ],
)
def test_nobody_is_let_in_without_a_token(method, path, guarded):
    answer = guarded.http.request(method, path, json={} if method == "POST" else None)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="calidrift"'
    assert answer.json()["title"] == "Unauthorized"


def test_a_scope_opens_its_own_doors_only(guarded):
    boss = {"Authorization": "Bearer the-boss-knows-it-0"}

    assert guarded.get("/models", headers=READ).status_code == 200
    assert guarded.http.get("/metrics", headers=READ).status_code == 200
    assert guarded.get("/models", headers=boss).status_code == 403
    assert guarded.post("/freezes", {"frozen": True}, headers=READ).status_code == 403
    assert guarded.post("/freezes", {"frozen": True}, headers=boss).status_code == 200
    assert guarded.post("/jobs", {"model": "net"}, headers=boss).status_code == 403
    assert guarded.get("/audit", headers=READ).json()["items"][0]["actor"] == "boss"


def test_who_only_makes_a_browser_ask_is_not_let_in(site):
    """Without tokens this machine may do everything; a page of another site may not."""
    rebound = site.http.get("/api/v1/models", headers={"Host": "evil.example"})
    foreign = site.post("/freezes", {"frozen": True}, headers={"Origin": "https://evil.example"})
    null = site.post("/freezes", {"frozen": True}, headers={"Origin": "null"})
    own = site.post("/freezes", {"frozen": True}, headers={"Origin": "http://127.0.0.1"})

    assert [one.status_code for one in (rebound, foreign, null, own)] == [403, 403, 403, 200]
    assert site.get("/models").status_code == 200


ROTATED = GOOD.replace(SECRET, "another-secret-0123456789")
NEW = {"Authorization": "Bearer another-secret-0123456789"}


def test_a_rotated_token_works_at_once_and_the_old_one_no_longer(guarded, tokens_file):
    statuses = [guarded.get("/models", headers=one).status_code for one in (READ, NEW)]
    tokens_file(ROTATED)
    rotated = [guarded.get("/models", headers=one).status_code for one in (READ, NEW)]

    assert (statuses, rotated) == ([200, 401], [401, 200])


def test_a_file_that_replaces_the_old_one_is_read(guarded, tokens_file, tmp_path):
    """As Kubernetes and careful scripts do it: another file under the same name."""
    assert guarded.get("/models", headers=READ).status_code == 200
    other = tmp_path / "other.toml"
    other.write_text(ROTATED, encoding="utf-8")
    other.chmod(0o600)
    other.replace(guarded.config.service.tokens)

    assert guarded.get("/models", headers=READ).status_code == 401
    assert guarded.get("/models", headers=NEW).status_code == 200


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        (ROTATED[:40], 0o600, "is not valid TOML"),
        (ROTATED, 0o644, "may be read by others"),
    ],
    ids=["half written", "open to others"],
)
def test_a_file_that_cannot_be_used_changes_nothing_and_is_told_once(
    text, mode, told, guarded, tokens_file, caplog
):
    tokens_file(text, mode)

    statuses = [guarded.get("/models", headers=READ).status_code for _ in range(3)]
    [line] = [one for one in caplog.messages if "stay in force" in one]
    tokens_file(ROTATED + "# put right\n")

    assert statuses == [200] * 3
    assert told in line
    assert "another-secret" not in caplog.text
    assert guarded.get("/models", headers=READ).status_code == 401
    assert guarded.get("/models", headers=NEW).status_code == 200


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_no_token_left_opens_nothing(how, guarded, tokens_file):
    """Without any token from the start this machine may ask; after a token it never may."""
    if how == "gone":
        guarded.config.service.tokens.unlink()
    else:
        tokens_file("")

    assert guarded.get("/models", headers=READ).status_code == 401
    assert guarded.get("/models").status_code == 401
    assert guarded.http.get("/metrics").status_code == 401
    tokens_file(ROTATED)
    assert guarded.get("/models", headers=NEW).status_code == 200


@pytest.mark.parametrize("text", ["", "# none yet\n"], ids=["empty", "comment"])
@pytest.mark.parametrize("variable", ["", f"ci:read:{SECRET}"], ids=["alone", "variable"])
def test_a_file_that_is_named_and_holds_no_token_is_refused(
    text, variable, make_site, tokens_file, monkeypatch
):
    """Half written when the service starts, it must not open everything to this machine."""
    monkeypatch.setenv("CALIDRIFT_TOKENS", variable)

    with pytest.raises(ConfigurationError, match=r"tokens\.toml holds no token; write one table"):
        make_site(tokens=tokens_file(text))


def test_the_first_token_guards_from_then_on(tokens_file):
    source = TokenFile(tokens_file(""), "")
    assert not source.guarded
    tokens_file(GOOD)

    assert source.current().bearer(SECRET).name == "eye"
    assert source.guarded


def test_a_token_of_the_environment_stays_when_the_file_is_gone(tokens_file):
    source = TokenFile(tokens_file(GOOD), "ci:read:fedcba9876543210")
    source.current()
    (tokens_file(GOOD)).unlink()

    tokens = source.current()

    assert tokens.bearer(SECRET) is None
    assert tokens.bearer("fedcba9876543210").name == "ci"


def test_a_file_that_did_not_change_is_not_read_again(tokens_file, monkeypatch):
    path = tokens_file(GOOD)
    os.utime(path, (1, 1))  # what is new is read twice
    source = TokenFile(path, "")
    monkeypatch.setattr(Tokens, "load", lambda *given: pytest.fail("it was read again"))

    assert source.current() is source.current()


def test_what_is_written_within_a_tick_of_the_clock_is_seen_soon(tokens_file, monkeypatch):
    """Same file, same size, same time: only that it was new says that it must be looked at anew."""
    looks = _tokens._signature
    monkeypatch.setattr(_tokens, "_signature", lambda path: looks(path)[4:])  # size, and whether
    path = tokens_file(GOOD)
    source = TokenFile(path, "")
    path.write_text(GOOD.replace(SECRET, SECRET[::-1]), encoding="utf-8")
    until = time.monotonic() + 30.0
    while source.current().bearer(SECRET) is not None and time.monotonic() < until:
        time.sleep(0.01)

    assert source.current().bearer(SECRET) is None
    assert source.current().bearer(SECRET[::-1]).name == "eye"


def test_a_browser_that_signed_in_with_a_removed_token_is_out(guarded, tokens_file):
    guarded.http.post(
        "/sign-in",
        data={"token": SECRET, "next": "/"},
        headers={"Origin": "http://127.0.0.1"},
        follow_redirects=False,
    )
    before = guarded.http.get("/").status_code
    tokens_file(ROTATED)

    assert (before, guarded.http.get("/").status_code) == (200, 401)
