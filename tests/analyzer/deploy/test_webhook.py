"""An address as a hook: signed as the service checks signatures, tried again where it helps."""

import json
import socket
import time
from contextlib import closing

import pytest

from calidrift_analyzer.deploy import check_hook
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.service._tokens import (
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    Scope,
    Token,
    Tokens,
)

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def hooked(shop, server, secret):
    shop.hook(url=server.url, secret_file=secret, timeout_seconds=20.0)
    return shop


def test_the_document_is_signed_as_the_service_checks_it(hooked, server):
    version = hooked.promote()

    ended = hooked.deliver()

    [(path, headers, body)] = server.got
    assert path == "/deploy?stage=live"
    document = json.loads(body)
    assert document == {
        "format": 1,
        "model": "net",
        "version": version,
        "previous": "",
        "action": "promote",
        "registry": str(hooked.contract.registry),
        "registry_url": "",
        "manifest_sha256": ended.manifest_sha256,
        "idempotency_key": ended.key,
    }
    assert headers["Idempotency-Key"] == ended.key
    checked = {
        SIGNATURE_HEADER: headers["X-Calidrift-Signature"],
        TIMESTAMP_HEADER: headers["X-Calidrift-Timestamp"],
    }
    holder = Token(name="us", secret=SECRET, scopes=frozenset({Scope.TRIGGER}), signs=True)
    assert Tokens([holder]).signed(checked, body) is not None
    assert Tokens([holder]).signed(checked, body + b" ") is None
    assert (ended.state, ended.output) == ("delivered", "answer 200")
    assert SECRET.decode() not in f"{headers}{body}{ended}"


def test_it_is_tried_again_under_the_same_key(hooked, server):
    server.answers.extend([503, lambda handler: handler.connection.close(), 429])
    hooked.promote()

    ended = hooked.deliver()

    assert (ended.state, ended.attempts) == ("delivered", 4)
    assert len({headers["Idempotency-Key"] for _, headers, _ in server.got}) == 1


@pytest.mark.parametrize("status", [302, 400, 401, 404])
def test_what_will_never_be_right_is_not_tried_again(hooked, server, status):
    server.answers.append(status)
    hooked.promote()

    ended = hooked.deliver()

    assert (ended.state, ended.attempts, len(server.got)) == ("failed", 1, 1)
    assert f"answered with status {status}" in ended.sentence
    assert ended.output == f"answer {status}"


def test_nobody_there_is_given_up_after_a_while(shop, server, secret):
    with closing(socket.socket()) as taken:  # bound and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        shop.hook(url=url, secret_file=secret, give_up_seconds=0.2)
        shop.promote()

        ended = shop.deliver()

    assert ended.state == "failed"
    assert f"gave up after 0.2 seconds: {url} did not answer" in ended.sentence


def test_an_answer_that_only_drips_is_cut_off(shop, server, secret):
    def drip(handler):
        try:
            for _ in range(3_000):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.01)
        except OSError:
            pass

    server.answers.append(drip)
    shop.hook(url=server.url, secret_file=secret, timeout_seconds=0.3, give_up_seconds=0.1)
    shop.promote()

    ended = shop.deliver()

    assert ended.state == "failed"
    assert "did not answer" in ended.sentence


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [
        (None, 0o600, "cannot be read (No such file or directory); correct secret_file"),
        ("0123456789abcdef", 0o644, "may be read by others (mode 0644)"),
        ("short", 0o600, "holds less than 16 characters"),
    ],
    ids=["missing", "open", "short"],
)
def test_a_secret_that_cannot_be_used_is_told_in_one_sentence(
    hooked, secret, server, content, mode, told
):
    hooked.promote()
    if content is None:
        secret.unlink()
    else:
        secret.write_text(content, encoding="utf-8")
        secret.chmod(mode)

    with pytest.raises(ConfigurationError) as caught:
        check_hook(hooked.contract)
    ended = hooked.deliver()

    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ended.state == "failed"
    assert told in ended.sentence
    assert server.got == []
