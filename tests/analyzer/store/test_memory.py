"""Memory that holds what was read is given back, and nothing else changes."""

import pytest

from calidrift_analyzer.store import Store, StoreLostError


def setting(store):
    """The limit of memory in GiB."""
    told = store._connection.rows("SELECT current_setting('memory_limit')")[0][0]
    amount, unit = told.split()
    assert unit == "GiB"
    return float(amount)


def held(store):
    sql = "SELECT SUM(memory_usage_bytes) FROM duckdb_memory() WHERE tag = 'BASE_TABLE'"
    return int(store._connection.rows(sql)[0][0])


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "calidrift.duckdb"
    with Store.open(path) as store:
        store._connection.rows(
            "CREATE TABLE large AS SELECT i, md5(i::VARCHAR) AS text FROM range(1_000_000) AS t(i)"
        )
    with Store.open(path) as store:
        yield store


def test_blocks_that_were_read_are_let_go(store):
    limit = setting(store)  # told in tenths
    read = "SELECT COUNT(DISTINCT text) FROM large"
    found = store._connection.rows(read)
    before = held(store)

    store.release_memory()

    assert before > 2**24
    assert held(store) < 2**24
    assert store._connection.rows(read) == found
    for _ in range(5):
        store.release_memory()
    assert setting(store) == pytest.approx(limit, abs=0.11)
    assert store._connection.rows(read) == found


def test_the_limit_comes_back_where_letting_go_fails(store, monkeypatch):
    rows, asked, limit = store._connection.rows, [], setting(store)

    def failing(sql):
        asked.append(sql)
        if "16MB" in sql:
            raise StoreLostError("no")
        return rows(sql)

    monkeypatch.setattr(store._connection, "rows", failing)
    with pytest.raises(StoreLostError):
        store.release_memory()

    assert asked[-1] == f"SET memory_limit = '{limit} GiB'"
