import pytest

from calidrift_analyzer.store import Store


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "deep" / "calidrift.duckdb") as store:
        yield store
