import pytest

from calidrift_agent._profile import ClipBound
from calidrift_agent._taps import Ledger, PointTable, Recorder, ShelfPool
from calidrift_agent._taps._native import NATIVE


@pytest.fixture
def ledger():
    return Ledger("model", lambda: None)


BOTH = ["python", pytest.param("native", marks=pytest.mark.skipif(NATIVE is None, reason="no"))]


@pytest.fixture(params=BOTH)
def pool(request):
    """Memory of recorders: of those that Python writes, and of those that the native tap does."""
    return ShelfPool(native=request.param == "native")


@pytest.fixture
def python_pool():
    return ShelfPool(native=False)


def maker(ledger, pool):
    def make(points=4, *, rows=1, repeat=1, clips=None, table=None) -> Recorder:
        table = table or PointTable.of([(f"p{one}", ()) for one in range(points)], None, clips)
        return Recorder(table, ledger, pool, rows=rows, repeat=repeat)

    return make


@pytest.fixture
def new_recorder(ledger, pool):
    """A recorder over points p0, p1, ...; `clips` gives some of them a quantizer."""
    return maker(ledger, pool)


@pytest.fixture
def python_recorder(ledger, python_pool):
    """The same without the native tap."""
    return maker(ledger, python_pool)


@pytest.fixture
def clip():
    """A quantizer from -1 to 1.5 with a step of 0.5."""
    return ClipBound.of_quantizer(0.5, 2, 0, 5, "uint8")
