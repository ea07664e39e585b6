"""Mutes and markers in the store: an audit, to which rows are only added."""

import time
from dataclasses import replace

import duckdb
import pytest

from calidrift_analyzer.records import Marker, MarkerKind, Mute, MuteState, VersionRow
from calidrift_analyzer.store import Store
from calidrift_analyzer.store._compaction import compact

HOUR = 3_600 * 10**9
NOW = 1_800_000_000 * 10**9


def mute(point="fc:input", created=NOW, hours=1.0, **changes) -> Mute:
    fields = {
        "model": "net",
        "point": point,
        "created_ns": created,
        "until_ns": created + round(hours * HOUR),
        "reason": "a known sensor fault",
        "author": "eve",
    }
    return Mute(**{**fields, **changes})


def test_a_mute_comes_back_as_it_was_set(store):
    store.annotations.mute(mute())
    assert store.annotations.mutes("net", now_ns=NOW + 1) == (mute(),)
    assert store.annotations.mutes("other", now_ns=NOW + 1) == ()
    assert store.annotations.mutes(now_ns=NOW + 1) == (mute(),)


@pytest.mark.parametrize(("later", "active"), [(HOUR - 1, 1), (HOUR, 0)])
def test_it_ends_by_itself_to_the_nanosecond(store, later, active):
    store.annotations.mute(mute())
    assert len(store.annotations.active("net", now_ns=NOW + later)) == active
    (found,) = store.annotations.mutes("net", now_ns=NOW + later)
    assert found.state is (MuteState.ACTIVE if active else MuteState.EXPIRED)
    assert found.ended_ns == (None if active else NOW + HOUR)
    assert found.ended_by is None


def test_unmuting_is_kept_with_who_and_when(store):
    started = time.time_ns()
    given = mute(created=started)
    store.annotations.mute(given)
    store.annotations.unmute(given, author="bob", reason="the camera is back")
    assert store.annotations.active("net") == ()
    (found,) = store.annotations.mutes("net")
    assert (found.state, found.ended_by, found.ended_because) == (
        MuteState.UNMUTED,
        "bob",
        "the camera is back",
    )
    assert started <= found.ended_ns <= time.time_ns()
    assert (found.author, found.reason) == ("eve", "a known sensor fault")


def test_muting_again_replaces_and_keeps_what_was(store):
    store.annotations.mute(mute())
    store.annotations.mute(mute(created=NOW + 10, hours=5, author="bob", reason="still"))
    new, old = store.annotations.mutes("net", now_ns=NOW + 20)
    assert (new.state, new.reason) == (MuteState.ACTIVE, "still")
    assert (old.state, old.ended_ns, old.ended_by) == (MuteState.REPLACED, NOW + 10, "bob")
    assert old.ended_because is None


def test_a_mute_after_one_that_had_run_out_does_not_end_it(store):
    store.annotations.mute(mute())
    store.annotations.mute(mute(created=NOW + 3 * HOUR))
    new, old = store.annotations.mutes("net", now_ns=NOW + 3 * HOUR + 1)
    assert (new.state, old.state) == (MuteState.ACTIVE, MuteState.EXPIRED)
    assert old.ended_ns == NOW + HOUR


def test_points_patterns_and_the_whole_model_are_different_things(store):
    for point in ("fc:input", "fc*", None):
        store.annotations.mute(mute(point, created=time.time_ns()))
    store.annotations.unmute(store.annotations.active()[0], author="bob")
    assert {one.point for one in store.annotations.active()} == {"fc:input", "fc*"}


def test_rows_are_only_ever_added(store):
    given = mute(created=time.time_ns())
    for _ in range(3):
        store.annotations.mute(given)
        store.annotations.unmute(given, author="bob")
    path = store.path
    store.close()
    with duckdb.connect(str(path), read_only=True) as connection:
        rows = connection.execute("SELECT id, until IS NULL FROM mutes ORDER BY id").fetchall()
    assert rows == [(number, number % 2 == 0) for number in range(1, 7)]


def test_they_survive_a_new_start_and_a_compaction(tmp_path):
    path = tmp_path / "x.duckdb"
    with Store.open(path) as store:
        store.annotations.mute(mute())
        store.annotations.mark(Marker(model="net", at_ns=NOW, text="deployed", author="eve"))
        compact(store._connection)
        # The copy goes on counting where the file did.
        store.annotations.mute(mute(created=NOW + 1, reason="still"))
        store.annotations.mark(Marker(model="net", at_ns=NOW + 1, text="again", author="eve"))
    with Store.open(path) as store:
        assert [one.reason for one in store.annotations.mutes(now_ns=NOW + 2)] == [
            "still",
            "a known sensor fault",
        ]
        assert [one.text for one in store.annotations.markers()] == ["again", "deployed"]


def test_promotions_and_rollbacks_mark_themselves(store):
    store.annotations.mark(Marker(model="net", at_ns=NOW + 5, text="new client", author="eve"))
    row = VersionRow(
        model="net",
        version="000001-abc",
        action="promoted",
        created_ns=NOW,
        profile="p",
        document="{}",
    )
    store.outcomes.record_version(row)
    store.outcomes.record_version(replace(row, action="rolled_back", created_ns=NOW + 9))
    store.outcomes.record_version(replace(row, model="other"))
    found = store.annotations.markers("net")
    assert [(one.text, one.kind, one.at_ns, one.author) for one in found] == [
        ("version 000001-abc was rolled back to", MarkerKind.ROLLED_BACK, NOW + 9, None),
        ("new client", MarkerKind.MARKED, NOW + 5, "eve"),
        ("version 000001-abc was promoted", MarkerKind.PROMOTED, NOW, None),
    ]
    assert len(store.annotations.markers()) == 4


def test_a_database_without_the_tables_gets_them_and_loses_nothing(tmp_path, traffic, monkeypatch):
    from calidrift_analyzer.store import _migrations
    from calidrift_analyzer.store._sql import migrations

    every = migrations()
    path = tmp_path / "x.duckdb"
    with monkeypatch.context() as patched:
        before = tuple(step for step in every if step.number < 4)
        patched.setattr(_migrations, "migrations", lambda: before)
        from calidrift_analyzer.store._connection import Connection

        connection = Connection(path)
        connection.rows(
            "INSERT INTO versions (model, version, action, created, profile, document) VALUES "
            "('net', 'v1', 'promoted', make_timestamp_ns(5), 'p', '{}')"
        )
        connection.close()
    with Store.open(path) as store:
        assert store.annotations.mutes() == ()
        assert [one.text for one in store.annotations.markers()] == ["version v1 was promoted"]


def test_two_archives_tell_one_story(tmp_path):
    """What was said in either is there once, in the order of time; what holds is the latest."""
    with Store.open(tmp_path / "other.duckdb") as other:
        other.annotations.mute(mute(created=NOW + 5, reason="second"))
        other.annotations.mark(Marker(model="net", at_ns=NOW, text="there", author="bob"))
    with Store.open(tmp_path / "here.duckdb") as store:
        store.annotations.mute(mute(reason="first"))
        store.annotations.mute(mute(created=NOW + 9, reason="third"))
        store.annotations.mark(Marker(model="net", at_ns=NOW + 1, text="here", author="eve"))
        for _ in range(2):  # again brings nothing
            store.upkeep.merge(tmp_path / "other.duckdb")
            found = store.annotations.mutes(now_ns=NOW + 10)
            assert [(one.reason, one.state) for one in found] == [
                ("third", MuteState.ACTIVE),
                ("second", MuteState.REPLACED),
                ("first", MuteState.REPLACED),
            ]
            assert [one.text for one in store.annotations.markers()] == ["here", "there"]
        store.annotations.mute(mute(created=NOW + 11, reason="fourth"))
        assert store.annotations.active(now_ns=NOW + 12)[0].reason == "fourth"
