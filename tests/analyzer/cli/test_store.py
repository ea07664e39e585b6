"""`calidrift store`: one sentence for people, one document for machines, the right status."""

import dataclasses
import shutil

import pytest

from calidrift_analyzer.config import load_config
from calidrift_analyzer.cycle import landmarks_of, retention_of
from calidrift_analyzer.store import Store, StoreLostError, Upkeep


@pytest.fixture
def database(shop, traffic):
    """Three windows of one process in the shop's database."""
    path = shop.root / "calidrift.duckdb"
    with Store.open(path) as store:
        store.ingest(traffic.meta(), [traffic.random_window(n) for n in range(3)], batch=1)
    return path


def test_check_of_a_whole_database_is_one_sentence(shop, database):
    status, out, _ = shop.run("store", "check")
    assert status == 0
    assert out.startswith("the database is whole: 3 windows of 1 process, each exactly once, in 3 ")
    assert out.count("\n") == 1
    status, document = shop.json("store", "check")
    assert (status, document["whole"], document["windows"]) == (0, True, 3)


def test_check_tells_windows_that_never_came(shop, database, traffic):
    with Store.open(database) as store:
        windows = [traffic.random_window(n) for n in (0, 1, 2, 7, 8)]
        store.ingest(traffic.meta(), windows, batch=2)
    status, out, err = shop.run("store", "check")
    assert status == 0
    assert out.startswith("the database contradicts itself nowhere: 8 windows of 2 processes")
    assert "4 windows never came: process 2 lacks 4: windows 3 to 6. A state file" in err
    document = shop.json("store", "check")[1]
    assert (document["whole"], document["lost_windows"]) == (True, 4)
    assert document["gaps"] == ["process 2 lacks 4: windows 3 to 6"]


def test_check_of_a_damaged_database_is_refused(shop, database):
    with Store.open(database) as store:
        store._connection.rows("DELETE FROM process_points WHERE position = 1")
    status, _, err = shop.run("store", "check")
    assert status == 1
    assert "lack their process" in err
    assert "merge an archive that is whole" in err


def test_retain_folds_by_the_configuration(shop, database):
    status, out, _ = shop.run("store", "retain")
    assert status == 0
    assert "nothing was old enough" in out
    with Store.open(database) as store:
        store._connection.rows("UPDATE batches SET arrived = TIMESTAMP '2020-01-01'")
    status, document = shop.json("store", "retain")
    assert (status, document["folded"] > 0, document["fits"]) == (0, True, True)
    status, document = shop.json("store", "check")
    assert (status, document["windows"]) == (0, 3)


def test_a_limit_that_cannot_be_met_is_told(shop, database):
    shop.configure("[analyzer]\nmax_database_bytes = 1000\n")
    status, _, err = shop.run("store", "retain")
    assert status == 0
    assert "larger than max_database_bytes = 1,000" in err


def test_merge_brings_what_is_new_once(shop, database, traffic):
    other = shop.root / "other.duckdb"
    shutil.copyfile(database, other)
    with Store.open(other) as store:
        store.ingest(traffic.meta(), [traffic.random_window(0)], batch=2)
    status, out, _ = shop.run("store", "merge", str(other))
    assert status == 0
    assert "came 1 process, 1 record" in out
    status, out, _ = shop.run("store", "merge", str(other))
    assert (status, "nothing was changed" in out) == (0, True)
    status, document = shop.json("store", "merge", str(other))
    assert document == {
        "processes": 0, "records": 0, "differences": 0, "rows": 0, "unclear": []
    }  # fmt: skip


def test_what_merging_leaves_is_named(shop, database, traffic):
    other = shop.root / "other.duckdb"
    shutil.copyfile(database, other)
    with Store.open(other) as store:
        store._connection.rows("UPDATE process_points SET point = 'c:input' WHERE position = 0")
        store._connection.rows(
            "INSERT INTO windows SELECT w.* REPLACE (9 AS number) FROM windows AS w "
            "WHERE number = 2"
        )
    status, _, err = shop.run("store", "merge", str(other))
    assert status == 0
    assert "other points" in err


def test_compact_tells_the_sizes(shop, database):
    status, out, _ = shop.run("store", "compact")
    assert status == 0
    assert out.startswith("the database takes ")
    status, document = shop.json("store", "compact")
    assert document["bytes_after"] == database.stat().st_size


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("merge",), 2, "needs another archive"),
        (("check", "x.duckdb"), 2, "takes no archive"),
        (("merge", "nothing.duckdb"), 2, "there is no archive"),
        (("polish",), 2, "polish"),
        ((), 2, "argument"),
    ],
    ids=range(5),
)
def test_wrong_words_are_told(shop, database, words, status, said):
    found, _, err = shop.run("store", *words)
    assert found == status
    assert said in err


def test_a_database_that_is_not_there_is_not_made(shop):
    status, _, err = shop.run("store", "check")
    assert status == 2
    assert "there is no database" in err
    assert not (shop.root / "calidrift.duckdb").exists()


def test_a_database_that_fails_twice_is_told(shop, database, monkeypatch):
    def dying(*_):
        raise StoreLostError("no space left")

    monkeypatch.setattr(Upkeep, "compact", dying)
    status, _, err = shop.run("store", "compact")
    assert (status, "no space left" in err) == (2, True)


def test_the_configuration_becomes_a_retention(shop):
    shop.configure(
        "[analyzer]\nkeep_windows_hours = 12.0\nkeep_minutes_days = 2.0\nkeep_hours_days = 30.0\n"
        "keep_days_years = 1.0\nmax_database_bytes = 5\n"
    )
    retention = retention_of(load_config(shop.root / "calidrift.toml"))
    spans = [getattr(retention, name) for name in ("windows", "minutes", "hours", "days")]
    assert [span.total_seconds() / 3600 for span in spans] == [12, 48, 720, 8760]
    assert retention.max_bytes == 5


def test_landmarks_follow_the_rules_of_the_declared_model(shop, database, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "calidrift_analyzer.cycle._retention.landmarks", lambda *found: seen.append(found[2])
    )
    written = shop.root / "calidrift.toml"
    shop.configure(written.read_text(encoding="utf-8") + "alpha = 0.2\n")
    find = landmarks_of(load_config(written))
    with Store.open(database) as store:
        history = store.history("net", "")
    find(history, None)
    find(dataclasses.replace(history, model="shop"), None)
    assert [rules.alpha for rules in seen] == [0.05, 0.2]
