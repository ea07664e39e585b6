import pytest

from calidrift_agent._profile import ClipBound
from calidrift_agent._taps import Ledger, PointTable, Recorder, ShelfPool


@pytest.fixture
def ledger():
    return Ledger("model", lambda: None)


@pytest.fixture
def new_recorder(ledger):
    """A recorder over points p0, p1, ...; `clips` gives some of them a quantizer."""

    def make(points=4, *, rows=1, repeat=1, clips=None, table=None) -> Recorder:
        table = table or PointTable.of([(f"p{one}", ()) for one in range(points)], None, clips)
        return Recorder(table, ledger, ShelfPool(), rows=rows, repeat=repeat)

    return make


@pytest.fixture
def clip():
    """A quantizer from -1 to 1.5 with a step of 0.5."""
    return ClipBound.of_quantizer(0.5, 2, 0, 5, "uint8")
