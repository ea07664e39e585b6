"""Two splits with the same samples are found; two that only look alike are not refused."""

import numpy as np
import pytest
import torch

from calidrift_analyzer.contract import Split
from calidrift_analyzer.errors import ContractError
from calidrift_analyzer.validate._samples import SampleLog, require_disjoint


def digests(*calls, **kwargs):
    log = SampleLog()
    for call in calls:
        log.add(call if isinstance(call, tuple) else (call,), kwargs)
    return log.digests


def rows(count, seed):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def check(select, gate, report=None):
    require_disjoint({Split.SELECT: select, Split.GATE: gate, Split.REPORT: report})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_the_size_of_the_batches_does_not_matter(dtype):
    x = (10 * rows(6, 0)).clamp(min=0).to(dtype)

    assert digests(x) == digests(x[:4], x[4:])
    assert digests(x) != digests(x.flip(0))


def test_every_input_of_a_row_counts():
    x, y = rows(4, 0), rows(4, 1)

    assert digests((x, y)) != digests((x, y + 1))
    assert digests(x, mask=y) != digests(x, mask=y + 1)
    assert digests(x, mask=y[0]) != digests(x, mask=y[1]), "shared by all rows"
    assert digests(x, temperature=0.5) != digests(x, temperature=0.6)
    assert digests(x) != digests(x.double())


def test_samples_without_a_row_or_a_tensor():
    assert digests(torch.zeros(0, 3)) == ()
    assert digests(("a text",)) != digests(("another",))
    assert len(digests(("a text",), ("a text",))) == 2


@pytest.mark.parametrize("odd", [torch.eye(3).to_sparse(), object()])
def test_inputs_that_cannot_be_read_are_not_compared(odd):
    assert digests((odd,)) is None
    assert digests(rows(2, 0), (odd,), rows(2, 0)) is None
    check(None, digests(rows(2, 0)))
    check(None, None)


@pytest.mark.parametrize(
    ("select", "gate", "told"),
    [
        (rows(20, 0), rows(20, 0), "all 20 of the split select are in the split gate"),
        (rows(20, 0), rows(20, 0).flip(0), "all 20 of the split select are in the split gate"),
        (rows(20, 0), rows(20, 0)[5:], "all 15 of the split gate are in the split select"),
        (rows(7, 0), torch.cat([rows(20, 1), rows(7, 0)]), "all 7 of the split select are in"),
        (torch.zeros(9, 3), torch.zeros(9, 3), "all 9 of the split select are in the split gate"),
    ],
    ids=["equal", "in another order", "a part", "a part of the second", "a constant"],
)
def test_the_same_samples_on_two_splits_are_one_sentence(select, gate, told):
    with pytest.raises(ContractError, match=told) as caught:
        check(digests(select), digests(gate))
    assert "evaluate must run other samples" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_third_split_is_looked_at_as_well():
    with pytest.raises(ContractError, match="all 5 of the split gate are in the split report"):
        check(digests(rows(5, 0)), digests(rows(5, 1)), digests(rows(5, 1)))


def test_splits_drawn_apart_from_few_possible_inputs_are_not_refused():
    """Four binary features: 16 possible rows, and every row of one split is in the other."""
    draw = np.random.default_rng(0)
    select, gate, report = (
        digests(torch.from_numpy(draw.integers(0, 2, (count, 4)))) for count in (500, 500, 30)
    )
    assert set(report) <= set(gate) == set(select)

    check(select, gate, report)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_tiny_splits_of_other_samples_are_not_refused(count):
    check(digests(rows(count, 0)), digests(rows(count, 1)), digests(rows(count, 2)))


def test_a_shared_sample_among_others_is_not_refused():
    """The same text twice in a day of traffic is no leak."""
    check(digests(rows(30, 0)), digests(torch.cat([rows(30, 0)[:4], rows(30, 1)])))
