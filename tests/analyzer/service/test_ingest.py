"""Pushed windows: exactly once, checked, and the same figures as from a state file."""

import dataclasses
import time

import numpy as np
import pytest

from calidrift_agent._state import (
    NO_WINDOW,
    PUSH_MEDIA_TYPE,
    PointMeta,
    Push,
    PushedCapture,
    decode_push,
    encode_push,
    push_parts,
)
from calidrift_agent._vocabulary import CaptureKind, RequestColumn, ValueColumn, WindowFlag
from calidrift_agent.errors import StateFormatError
from calidrift_analyzer.service._ingest import check_push

SECOND = 10**9
HOUR = 3_600 * SECOND


def send(site, push, path="/ingest", **more):
    body = push if isinstance(push, bytes) else encode_push(push)
    headers = {"Content-Type": PUSH_MEDIA_TYPE, **more}
    return site.http.post(f"/api/v1{path}", content=body, headers=headers)


@pytest.fixture
def made(traffic):
    """A process with three windows and its profile."""
    calm = {name: traffic.rng.uniform(-1, 1, (200, 8)) for name in ("a:input", "b:input")}
    profile = traffic.profile(calm)
    meta = traffic.meta(profile=profile.digest)
    start = time.time_ns() - HOUR
    windows = tuple(
        dataclasses.replace(
            traffic.random_window(number), start_ns=start + number, end_ns=start + number + 1
        )
        for number in range(3)
    )
    return meta, profile, windows


def captures(*names):
    return tuple(
        PushedCapture(name, CaptureKind.UNCOVERED, 1_800_000_000 * 10**9, "night", 9_000)
        for name in names
    )


def test_windows_arrive_and_are_what_they_were(site, made):
    meta, profile, windows = made

    answer = send(site, Push(meta, windows, profile.to_json(), captures("x.safetensors")))

    assert answer.status_code == 200
    assert answer.json() == {
        "process": meta.process,
        "model": "net",
        "stored": 3,
        "last_number": 2,
        "profile_known": True,
        "wanted": ["x.safetensors"],
    }
    totals = site.run(lambda store: store.totals("net", meta.profile))
    assert np.array_equal(totals.requests, sum(window.requests for window in windows))
    for row, point in enumerate(totals.points):
        assert np.array_equal(point.cells, sum(window.cells[row] for window in windows))
    assert site.run(lambda store: store.profile(profile.digest)) is not None
    [capture] = site.get("/models/net/captures").json()["items"]
    assert (capture["name"], capture["here"], capture["segment"]) == (
        "x.safetensors",
        False,
        "night",
    )
    assert site.service.board.rows() == {"net": 3}


def test_the_same_push_again_changes_nothing(site, made):
    meta, _, windows = made
    first = send(site, Push(meta, windows[:2]))
    again = send(site, Push(meta, windows))
    third = send(site, Push(meta, windows))

    assert [one.json()["stored"] for one in (first, again, third)] == [2, 1, 0]
    totals = site.run(lambda store: store.totals("net", meta.profile))
    assert totals.windows == 3
    assert np.array_equal(totals.requests, sum(window.requests for window in windows))


def test_a_profile_that_is_not_here_is_asked_for(site, made):
    meta, profile, windows = made

    without = send(site, Push(meta, windows))
    along = send(site, Push(meta, (), profile.to_json()))

    assert without.json()["profile_known"] is False
    assert along.json() == {**without.json(), "stored": 0, "profile_known": True}


def test_the_listing_of_captures_is_replaced_and_only_where_it_is_told(site, made):
    meta, _, windows = made
    send(site, Push(meta, (), None, captures("a", "b")))
    send(site, Push(meta, windows))
    two = site.get("/models/net/captures").json()["items"]
    send(site, Push(meta, (), None, captures("b")))
    one = site.get("/models/net/captures").json()["items"]

    assert [item["name"] for item in two] == ["b", "a"]
    assert [item["name"] for item in one] == ["b"]


def test_captures_come_in_pages(site, made):
    meta, _, _ = made
    send(site, Push(meta, (), None, captures("a", "b", "c")))

    first = site.get("/models/net/captures", params={"limit": 2}).json()
    rest = site.get("/models/net/captures", params={"cursor": first["next"]}).json()

    names = [item["name"] for page in (first, rest) for item in page["items"]]
    assert names == ["c", "b", "a"]
    assert rest["next"] is None


def test_a_sender_that_lost_windows_is_told_their_sums(site, made):
    meta, _, windows = made
    before = send(site, Push(meta), "/ingest/sums")
    send(site, Push(meta, windows))
    after = send(site, Push(meta), "/ingest/sums")

    [empty] = decode_push(before.content).windows
    [sums] = decode_push(after.content).windows
    assert empty.number == NO_WINDOW
    assert not empty.requests.any()
    assert sums.number == 2
    assert np.array_equal(sums.requests, sum(window.requests for window in windows))
    assert np.array_equal(sums.cells, sum(window.cells for window in windows))
    assert send(site, Push(meta, windows), "/ingest/sums").status_code == 400


def changed(window, **changes):
    return dataclasses.replace(window, **changes)


def poisoned(window, array, index, value):
    copied = getattr(window, array).copy()
    copied[index] = value
    return dataclasses.replace(window, **{array: copied})


BAD_WINDOWS = {
    "number": lambda w: changed(w, number=2**60),
    "backwards": lambda w: changed(w, end_ns=w.start_ns - 1),
    "future": lambda w: changed(w, end_ns=2**62),
    "past": lambda w: changed(w, start_ns=-1),
    "count": lambda w: poisoned(w, "counts", (0, 0), 2**62),
    "requests": lambda w: poisoned(w, "requests", RequestColumn.SEEN, 2**50),
    "cells": lambda w: poisoned(w, "cells", (1, 700), 2**61),
    "energy": lambda w: poisoned(w, "values", (0, ValueColumn.ENERGY), np.inf),
    "nan": lambda w: poisoned(w, "values", (0, ValueColumn.HIGHEST), np.nan),
    "negative": lambda w: poisoned(w, "values", (0, ValueColumn.CLIPPED_ENERGY), -1.0),
    "flags": lambda w: changed(w, flags=WindowFlag(2**20)),
}


@pytest.mark.parametrize("bad", BAD_WINDOWS, ids=str)
def test_a_figure_that_cannot_be_spoils_nothing(bad, site, made):
    meta, _, windows = made

    answer = send(site, Push(meta, (windows[0], BAD_WINDOWS[bad](windows[1]))))

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert site.run(lambda store: store.observed()) == (), "nothing of it was stored"


BAD_METAS = {
    "process": {"process": "../../etc/passwd"},
    "profile": {"profile": "not a digest"},
    "model": {"model": ""},
    "newline": {"model": "a\nb"},
    "points": {"points": (PointMeta("a:input"), PointMeta("a:input"))},
    "bound": {"points": (PointMeta("a:input", float("nan")), PointMeta("b:input"))},
    "window": {"window_seconds": 0.0},
    "started": {"started_ns": -5},
    "version": {"agent_version": ""},
    "dots": {"model": ".."},
    "dot": {"model": "."},
    "point-dots": {"points": (PointMeta(".."), PointMeta("b:input"))},
}


@pytest.mark.parametrize("bad", BAD_METAS, ids=str)
def test_a_process_that_cannot_be_is_refused(bad, site, made):
    meta, _, windows = made

    answer = send(site, Push(dataclasses.replace(meta, **BAD_METAS[bad]), windows))

    assert answer.status_code == 400
    assert site.run(lambda store: store.observed()) == ()


def dated(windows, ahead_ns):
    """Windows of a second each, the last of which ends so far ahead of the clock."""
    end_ns = time.time_ns() + ahead_ns
    return tuple(
        changed(window, start_ns=end_ns + at * SECOND, end_ns=end_ns + (at + 1) * SECOND)
        for at, window in enumerate(windows, -len(windows))
    )


@pytest.mark.parametrize("hours", [23, 24 * 365])
def test_what_ends_ahead_of_the_clock_is_kept_and_dated_back(hours, site, made):
    """Refused, it would be lost for ever; as it is, it would be the newest for as long."""
    meta, _, windows = made
    ahead = dated(windows, hours * HOUR)

    answer = send(site, Push(meta, ahead))
    again = send(site, Push(meta, ahead))

    until_ns = time.time_ns() + 300 * SECOND
    assert (answer.json()["stored"], again.json()["stored"]) == (3, 0)
    totals = site.run(lambda store: store.totals("net", meta.profile))
    assert np.array_equal(totals.requests, sum(window.requests for window in windows))
    assert until_ns - 60 * SECOND < totals.last_ns <= until_ns
    assert totals.last_ns - totals.first_ns == SECOND, "each as long as it was"
    counted = {"model": "net"}
    name = "calidrift_analyzer_dated_back_windows_total"
    assert site.service.registry.get_sample_value(name, counted) == 3


def test_a_clock_that_is_a_little_ahead_is_believed(site, made):
    meta, _, windows = made
    little = dated(windows, 200 * SECOND)

    send(site, Push(meta, little))

    totals = site.run(lambda store: store.totals("net", meta.profile))
    assert totals.last_ns == little[-1].end_ns
    assert site.service.board.dated_back() == {}


def test_an_analyzer_whose_clock_was_set_back_takes_what_comes(site, made, monkeypatch):
    meta, _, windows = made
    send(site, Push(meta, dated(windows[:1], 0)))
    later = dated(windows[1:], 0)
    far = changed(windows[2], number=9_000, start_ns=later[1].end_ns, end_ns=later[1].end_ns)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 48 * HOUR)

    answers = [send(site, Push(meta, (one,))) for one in (*later, far)]

    assert [answer.json()["stored"] for answer in answers] == [1, 1, 1]
    totals = site.run(lambda store: store.totals("net", meta.profile))
    assert totals.last_ns == later[1].end_ns, "the moments stay what they are"


def test_real_drift_is_not_hidden_by_a_clock_that_is_ahead(site, traffic):
    """Nothing was promoted: what came last is judged, whatever a clock said before."""
    meta, profile, drifted = site.record(traffic)
    calm = {"a:input": traffic.rng.uniform(-1, 1, (200, 16))}
    foreign = traffic.profile(calm)
    wrong = traffic.meta(("a:input",), profile=foreign.digest)
    bound = foreign.points["a:input"].observed_bound.value
    quiet = tuple(
        traffic.unit_window(n, [traffic.rng.uniform(-0.9, 0.9, (40, 16))], [bound])
        for n in range(8)
    )
    site.service.tasks.assess()
    before = site.get("/models/net").json()["verdict"]

    send(site, Push(wrong, dated(quiet, 23 * HOUR), foreign.to_json()))
    more = [changed(one, number=one.number + 100) for one in drifted[3:]]
    send(site, Push(meta, dated(more, 30 * SECOND), profile.to_json()))
    site.service.tasks.assess()

    found = site.get("/models/net").json()
    assert before == found["verdict"] == "drifted_harmful"
    assert found["profile"] == profile.digest


def test_a_number_that_cannot_be_silences_no_process(site, made, monkeypatch):
    meta, _, windows = made
    started_ns = time.time_ns() - 24 * HOUR
    meta = dataclasses.replace(meta, started_ns=started_ns, window_seconds=60.0)
    send(site, Push(meta, windows[:1]))
    forged = changed(windows[1], number=2**53 - 1)

    for told in (meta, dataclasses.replace(meta, started_ns=1, window_seconds=1e-9)):
        answer = send(site, Push(told, (forged,)))
        assert answer.status_code == 400
        assert "can have come to number" in answer.json()["detail"]

    rest = send(site, Push(meta, windows))
    assert (rest.json()["stored"], rest.json()["last_number"]) == (2, 2)


@pytest.mark.parametrize("ahead", [False, True], ids=["right", "started-ahead"])
def test_numbers_grow_with_time_whatever_the_clock_of_the_process_says(
    ahead, site, made, monkeypatch
):
    """A process that was out of reach for weeks, and one whose clock was ahead as it began."""
    meta, _, windows = made
    now_ns = time.time_ns()
    started_ns = now_ns + 9_000 * HOUR if ahead else now_ns
    meta = dataclasses.replace(meta, started_ns=started_ns, window_seconds=60.0)
    send(site, Push(meta, windows[:1]))
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 24 * 30 * HOUR)
    month = 24 * 30 * 60

    early = send(site, Push(meta, (changed(windows[1], number=2 * month),)))
    right = send(site, Push(meta, (changed(windows[1], number=month),)))

    assert early.status_code == 400
    assert (right.json()["stored"], right.json()["last_number"]) == (1, month)


def test_a_process_that_is_seen_late_for_the_first_time_has_large_numbers(site, made):
    meta, _, windows = made
    started_ns = time.time_ns() - 24 * 30 * HOUR
    meta = dataclasses.replace(meta, started_ns=started_ns, window_seconds=60.0)
    month = 24 * 30 * 60

    backlog = [changed(window, number=month - 3 + at) for at, window in enumerate(windows)]

    assert send(site, Push(meta, (changed(windows[0], number=2 * month),))).status_code == 400
    assert send(site, Push(meta, tuple(backlog))).json()["stored"] == 3


def test_windows_must_be_in_order_and_each_there_once(made):
    meta, _, windows = made

    for order in ((1, 0), (0, 0)):
        with pytest.raises(StateFormatError, match="in the order of their numbers"):
            check_push(Push(meta, tuple(windows[number] for number in order)))


def test_a_profile_must_be_that_of_the_process(site, made, traffic):
    meta, _, windows = made
    other = traffic.profile({"a:input": np.ones((9, 4))})

    foreign = send(site, Push(meta, windows, other.to_json()))
    broken = send(site, Push(meta, windows, "{}"))

    assert foreign.status_code == broken.status_code == 400
    assert "its process runs under" in foreign.json()["detail"]
    assert site.run(lambda store: store.profile_digests()) == ()


def test_a_body_that_is_cut_or_turned_is_refused_whole(site, made):
    meta, profile, windows = made
    body = encode_push(Push(meta, windows, profile.to_json(), captures("a")))
    places = np.random.default_rng(3).integers(0, len(body), 60)

    for end in (0, 5, 16, 40, len(body) // 2, len(body) - 1):
        assert send(site, body[:end]).status_code == 400
    assert send(site, body + b"x").status_code == 400
    for place in places.tolist():
        turned = bytearray(body)
        turned[place] ^= 0x55
        assert send(site, bytes(turned)).status_code in (200, 400), place
    assert send(site, body).status_code == 200


def test_a_push_may_come_with_any_content_type_but_not_without_a_body(site):
    assert send(site, b"").status_code == 400
    assert send(site, b"{}", **{"Content-Type": "application/json"}).status_code == 400


def test_a_body_above_the_limit_is_413(make_site, made):
    site = make_site(max_body_bytes=2_048)
    meta, _, windows = made

    declared = send(site, Push(meta, windows))
    chunked = site.http.post("/api/v1/ingest", content=iter([b"x" * 1_000] * 5))
    order = site.http.post(
        "/api/v1/jobs",
        content=iter([b" " * 1_000] * 5),
        headers={"Content-Type": "application/json"},
    )

    for answer in (declared, chunked, order):
        assert answer.status_code == 413
        assert "max_body_bytes (2048)" in answer.json()["detail"]


def test_a_push_needs_the_scope(make_site, tokens_file, made):
    site = make_site(
        tokens=tokens_file(
            '[side]\nsecret = "s3cret-of-a-sidecar"\nscopes = ["ingest"]\n'
            '[eye]\nsecret = "s3cret-of-a-reader-0"\nscopes = ["read"]\n'
        )
    )
    meta, _, windows = made

    def status(secret):
        header = {"Authorization": f"Bearer {secret}"}
        return send(site, Push(meta, windows), **header).status_code

    assert status("s3cret-of-a-sidecar") == 200
    assert status("s3cret-of-a-reader-0") == 403
    assert status("nobody-knows-this-one") == 401
    assert (
        site.get("/models", headers={"Authorization": "Bearer s3cret-of-a-sidecar"}).status_code
        == 403
    )


def test_parts_are_bounded_and_complete(made, traffic):
    meta, profile, _ = made
    wide = traffic.meta(points=tuple(f"p{n}" for n in range(1_024)))
    windows = [traffic.random_window(number, 1_024) for number in range(6)]

    parts = [decode_push(body) for body in push_parts(wide, windows, profile="{}")]

    assert [len(part.windows) for part in parts] == [4, 2]
    assert [part.profile for part in parts] == ["{}", None]
    assert [w.number for part in parts for w in part.windows] == list(range(6))
    assert list(push_parts(meta, [])) == []
    assert len(list(push_parts(meta, [], profile=profile.to_json()))) == 1
    with pytest.raises(ValueError, match="use push_parts"):
        encode_push(Push(wide, tuple(windows)))
