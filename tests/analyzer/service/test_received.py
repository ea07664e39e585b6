"""Single captures that are asked for, sent, kept, and found by a selection."""

import dataclasses
import errno
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from calidrift_agent._capture._file import CaptureRow, encode_capture, points_digest
from calidrift_agent._state import PUSH_MEDIA_TYPE, Push, PushedCapture, encode_push
from calidrift_agent._vocabulary import CaptureKind
from calidrift_analyzer.cycle import stored_pool
from calidrift_analyzer.service import _received
from calidrift_analyzer.service._received import Received

NOW = 1_800_000_000 * 10**9


@pytest.fixture
def sender(site, traffic):
    """A sidecar beside a process of `net` with twenty captures, twelve by night."""
    calm = {name: traffic.rng.uniform(-1, 1, (200, 8)) for name in ("a:input", "b:input")}
    profile = traffic.profile(calm)
    return Sender(site, traffic.meta(profile=profile.digest), profile)


class Sender:
    def __init__(self, site, meta, profile):
        self.site, self.meta, self.profile = site, meta, profile
        self.files = {}
        for number in range(20):
            self.add(f"{number:02d}.safetensors", number, "night" if number < 12 else "day")

    def add(self, name, number, segment, kind="uncovered", model="net"):
        points = tuple(self.profile.points)
        row = CaptureRow(
            inputs={"x": np.full((1, 4), number, np.float32)},
            maxima=np.full(len(points), 9.0, np.float32),
            uncovered=True,
            time_ns=NOW + number,
            segment=segment,
        )
        header = {
            "id": f"{number:032x}",
            "kind": kind,
            "model": model,
            "profile": self.meta.profile,
            "points": json.dumps(points),
            "points_digest": points_digest(points),
        }
        blob = encode_capture(row, row.inputs, header)
        listed = PushedCapture(name, CaptureKind(kind), NOW + number, segment, len(blob))
        self.files[name] = (listed, blob)

    def push(self, **changes):
        given = {"captures": tuple(one for one, _ in self.files.values()), **changes}
        meta = given.pop("meta", self.meta)
        body = encode_push(Push(meta, profile=self.profile.to_json(), **given))
        answer = self.site.http.post(
            "/api/v1/ingest", content=body, headers={"Content-Type": PUSH_MEDIA_TYPE}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["wanted"]

    def send(self, name, blob=None, process=None):
        path = f"/api/v1/ingest/captures/{process or self.meta.process}/{name}"
        content = self.files[name][1] if blob is None else blob
        return self.site.http.post(path, content=content)


def test_a_few_of_every_segment_are_asked_for_the_newest_first(sender):
    wanted = sender.push()

    assert len(wanted) == 16
    assert wanted[:4] == ["19.safetensors", "11.safetensors", "18.safetensors", "10.safetensors"]
    assert sender.push(captures=None) == wanted, "the listing from before counts"


def test_what_was_sent_is_kept_once_and_can_be_selected_from(sender, site):
    sender.push()
    first = sender.send("11.safetensors")
    again = sender.send("11.safetensors")

    assert (first.status_code, first.json()["new"]) == (200, True)
    assert (again.status_code, again.json()["new"]) == (200, False)
    assert "11.safetensors" not in sender.push()
    pool = site.run(lambda store: stored_pool(store, "net", sender.meta.profile))
    [path] = pool.paths.values()
    assert Path(path).read_bytes() == sender.files["11.safetensors"][1]
    assert Path(path).stat().st_mode & 0o777 == 0o600
    items = site.get("/models/net/captures").json()["items"]
    assert sorted(one["name"] for one in items) == sorted(sender.files), "each is listed once"
    assert [one["name"] for one in items if one["here"]] == ["11.safetensors"]


def test_there_is_an_end_to_it(sender, site, monkeypatch):
    monkeypatch.setattr(_received, "MOST_HELD", 3)
    wanted = sender.push()
    assert len(wanted) == 3
    for name in wanted:
        assert sender.send(name).status_code == 200

    assert sender.push() == []


def test_what_is_of_no_use_is_not_asked_for(sender, site, traffic):
    sender.files = {}
    sender.add("uniform.safetensors", 1, "day", kind="uniform")
    sender.add("hidden name.safetensors", 2, "day")
    sender.add(".hidden.safetensors", 3, "day")
    sender.add("good.safetensors", 4, "day")
    huge = dataclasses.replace(sender.files["good.safetensors"][0], name="huge.safetensors",
                               size=2**30)  # fmt: skip
    sender.files["huge.safetensors"] = (huge, b"")

    assert sender.push() == ["good.safetensors"]
    unknown = dataclasses.replace(sender.meta, process="e" * 32, model="unknown")
    assert sender.push(meta=unknown) == []
    bare = traffic.meta(profile="")
    body = encode_push(Push(bare, captures=(sender.files["good.safetensors"][0],)))
    answer = site.http.post("/api/v1/ingest", content=body)
    assert answer.json()["wanted"] == [], "without a profile nothing can be called uncovered"


def test_what_was_not_asked_for_is_not_taken(sender, site):
    sender.push()
    other = "f" * 32
    for name, blob, process, status, told in (
        ("nothing.safetensors", b"x", None, 404, "was asked for"),
        ("11.safetensors", b"x", other, 404, "was asked for"),
        ("11.safetensors", b"x", "..", 404, ""),
        ("a%2Fb", b"x", None, 404, "no capture 'a/b' of"),
        ("11.safetensors", b"x", None, 400, "1 came"),
        ("11.safetensors", b"\0" * 10, None, 400, "10 came"),
        ("11.safetensors", sender.files["11.safetensors"][1][:-4], None, 400, "came"),
    ):
        answer = sender.send(name, blob, process)
        assert answer.status_code in {status, 422}, (name, answer.text)
        assert told in answer.text
    damaged = bytes(len(sender.files["11.safetensors"][1]))
    assert "cannot be used" in sender.send("11.safetensors", damaged).text
    assert not Received(site.config.database, 10).folder.exists()


def test_a_capture_of_another_model_is_refused(sender):
    sender.add("odd.safetensors", 40, "day", model="other")
    assert sender.push()[0] == "odd.safetensors", "the listing does not say it"

    answer = sender.send("odd.safetensors")

    assert answer.status_code == 400
    assert "is of model 'other'" in answer.text


def test_the_oldest_go_where_all_would_be_too_large(sender, site, monkeypatch):
    size = len(sender.files["00.safetensors"][1])
    monkeypatch.setattr(_received, "_MOST_BYTES", 3 * size)
    wanted = sender.push()[:4]
    folder = Received(site.config.database, 10).folder
    for at, name in enumerate(wanted):
        assert sender.send(name).status_code == 200
        for path in folder.rglob(name):
            stamp = time.time() - 100 + at
            os.utime(path, (stamp, stamp))

    assert sorted(path.name for path in folder.rglob("*.safetensors")) == sorted(wanted[1:])
    listed = site.run(lambda store: [Path(one.path).name for one in store.captures("net")])
    assert sorted(listed) == sorted(wanted[1:])


def test_without_room_the_sender_is_told_to_come_back(sender, monkeypatch):
    def full(path, blob):
        raise OSError(errno.ENOSPC, "No space left on device")

    sender.push()
    monkeypatch.setattr(_received, "write_privately", full)

    answer = sender.send("11.safetensors")

    assert answer.status_code == 503
    assert "No space left" in answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert "11.safetensors" in sender.push(), "it is asked for again"
