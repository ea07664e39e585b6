"""Who is not known is told so before anything of a body is read, or held."""

import asyncio
import hashlib
import hmac
import json
import time

import pytest

READER = "0123456789abcdef"
SIGNER = "s3cret-of-grafana-0123456789"
JSON = [(b"content-type", b"application/json")]


@pytest.fixture
def guarded(make_site, tokens_file):
    return make_site(
        tokens=tokens_file(
            f'[eye]\nsecret = "{READER}"\nscopes = ["read"]\n'
            f'[grafana]\nsecret = "{SIGNER}"\nscopes = ["trigger"]\nhmac = true\n'
        ),
        requests_per_minute=1_000,
    )


def posts(site):
    """Paths that take something."""
    found = site.http.get("/api/v1/openapi.json").json()["paths"]
    named = {"{job}": "1", "{model}": "net", "{process}": "0" * 32, "{name}": "a"}
    for path, operations in found.items():
        if "post" in operations:
            for name, value in named.items():
                path = path.replace(name, value)
            yield path


class Sender:
    """Sends the head of a request, and its body as it is told."""

    def __init__(self, site, path, headers=(), body=b"{"):
        self.site, self.path, self.headers = site, path, [*JSON, *headers]
        self.body = body
        self.read = 0
        self.more = asyncio.Event()
        self.statuses = []

    async def send_it(self):
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"127.0.0.1"), *self.headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await self.site.http.app(scope, self._receive, self._send)
        return self.statuses

    async def _receive(self):
        self.read += 1
        if self.read > 1:
            await self.more.wait()
        return {"type": "http.request", "body": self.body, "more_body": not self.more.is_set()}

    async def _send(self, message):
        if message["type"] == "http.response.start":
            self.statuses.append(message["status"])


def answer_to(sender):
    async def run():
        return await asyncio.wait_for(sender.send_it(), 30.0)

    return asyncio.run(run())


def signature(body=b"{}", secret=SIGNER, moment=None):
    moment = str(int(time.time()) if moment is None else moment)
    mac = hmac.new(secret.encode(), moment.encode() + b":" + body, hashlib.sha256)
    return [
        (b"x-grafana-alerting-signature", mac.hexdigest().encode()),
        (b"x-grafana-alerting-timestamp", moment.encode()),
    ]


def test_no_byte_of_a_body_is_read_before_it_is_known_who_sends_it(guarded):
    paths = list(posts(guarded))

    assert len(paths) >= 14
    for path in paths:
        sender = Sender(guarded, path)
        assert answer_to(sender) == [401], path
        assert sender.read == 0, path


def test_nor_before_what_they_may_do(guarded):
    sender = Sender(guarded, "/api/v1/freezes", [(b"authorization", f"Bearer {READER}".encode())])

    assert answer_to(sender) == [403]
    assert sender.read == 0


def test_a_form_is_not_read_either(guarded):
    head = [
        (b"origin", b"http://127.0.0.1"),
        (b"content-type", b"application/x-www-form-urlencoded"),
    ]
    sender = Sender(guarded, "/freeze", head)
    sender.headers = head

    assert answer_to(sender) == [401]
    assert sender.read == 0


def test_a_form_that_signs_in_is_read_as_far_as_it_may_be_long(guarded):
    sender = Sender(guarded, "/sign-in", body=b"a" * 10_000)
    sender.headers = [
        (b"origin", b"http://127.0.0.1"),
        (b"content-type", b"application/x-www-form-urlencoded"),
    ]

    async def run():
        asked = asyncio.ensure_future(sender.send_it())
        while sender.read < 2:
            await asyncio.sleep(0)
        sender.more.set()
        return await asyncio.wait_for(asked, 30.0)

    assert asyncio.run(run()) == [413]
    assert sender.read == 2


def test_malformed_bodies_without_a_token_are_slowed(make_site, tokens_file):
    site = make_site(
        tokens=tokens_file(f'[eye]\nsecret = "{READER}"\nscopes = ["read"]\n'),
        requests_per_minute=3,
    )

    head = {"Content-Type": "application/json"}

    answers = [site.http.post("/api/v1/freezes", content=b"{", headers=head) for _ in range(5)]

    assert [one.status_code for one in answers] == [401, 401, 401, 429, 429]


def test_a_request_counts_once(make_site, tokens_file):
    site = make_site(
        tokens=tokens_file('[boss]\nsecret = "0123456789abcdef"\nscopes = ["promote"]\n'),
        requests_per_minute=3,
    )
    head = {"Authorization": "Bearer 0123456789abcdef"}

    answers = [site.post("/freezes", {"frozen": True}, headers=head) for _ in range(4)]

    assert [one.status_code for one in answers] == [200, 200, 200, 429]


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-grafana-alerting-signature", b"00")],
        [(b"x-grafana-alerting-signature", b"0" * 64)],
        signature(moment=0),
    ],
    ids=["short", "no-timestamp", "old"],
)
def test_what_cannot_be_signed_is_not_read(guarded, headers):
    sender = Sender(guarded, "/api/v1/webhooks/grafana", headers)

    assert answer_to(sender) == [401]
    assert sender.read == 0


def test_nothing_is_read_for_a_signature_where_nobody_signs(make_site, tokens_file):
    site = make_site(tokens=tokens_file(f'[eye]\nsecret = "{READER}"\nscopes = ["read"]\n'))
    sender = Sender(site, "/api/v1/webhooks/grafana", signature())

    assert answer_to(sender) == [401]
    assert sender.read == 0


def alert_body():
    labels = {"alertname": "a", "model": "net", "action": "recalibrate"}
    return json.dumps({"version": "1", "alerts": [{"status": "firing", "labels": labels}]}).encode()


def test_bodies_that_may_be_signed_are_few_at_once_and_the_oldest_gives_way(guarded):
    """Twenty that are held back do not keep out one that is signed."""

    async def run():
        path = "/api/v1/webhooks/grafana"
        held = [Sender(guarded, path, signature()) for _ in range(20)]
        asked = [asyncio.ensure_future(one.send_it()) for one in held]
        await asyncio.wait(asked[:12], timeout=30.0)
        ended = [one.result() if one.done() else None for one in asked]
        body = alert_body()
        true = Sender(guarded, path, signature(body), body)
        true.more.set()
        answer = await asyncio.wait_for(true.send_it(), 30.0)
        for one in held:
            one.more.set()
        last = await asyncio.gather(*asked)
        return ended, answer, last

    ended, answer, last = asyncio.run(run())

    assert ended == [[503]] * 12 + [None] * 8
    assert answer == [202]
    assert last == [[503]] * 13 + [[401]] * 7


def test_one_that_does_not_come_is_given_up(guarded):
    guarded.service.gate._bodies._seconds = 0.05
    sender = Sender(guarded, "/api/v1/webhooks/grafana", signature())

    assert answer_to(sender) == [503]
    assert not guarded.service.gate._bodies._reading


def test_a_description_keeps_its_bodies_and_answers(guarded):
    paths = guarded.http.get("/api/v1/openapi.json").json()["paths"]
    freeze = paths["/api/v1/freezes"]["post"]
    model = freeze["requestBody"]["content"]["application/json"]["schema"]["$ref"]

    assert model.endswith("/FreezeOrder")
    assert {"401", "403", "422", "429"} <= set(freeze["responses"])
    assert freeze["security"] == [{"HTTPBearer": []}]
