from math import gcd, prod

import numpy as np
import pytest

from calidrift_agent._taps import SAMPLE_LIMIT, sample_plan

SHAPES = [
    (8, 64, 384),
    (1, 3, 224, 224),
    (8, 64, 56, 56),
    (4097,),
    (1, 4100),
    (6000, 1),
    (7, 11, 13, 17),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_stride_is_odd_and_coprime_to_every_dimension(shape):
    plan = sample_plan(shape)
    assert plan.stride % 2 == 1
    assert all(gcd(plan.stride, size) == 1 for size in shape)
    assert 0 < plan.count <= SAMPLE_LIMIT
    assert plan.weight == round(prod(shape) / plan.count)
    # Valid for the largest phase.
    assert plan.stride - 1 + (plan.count - 1) * plan.stride < prod(shape)


@pytest.mark.parametrize("shape", [(8, 64, 384), (2, 48, 192)])
def test_every_channel_is_seen(shape):
    plan = sample_plan(shape)
    channel = np.arange(prod(shape)) % shape[-1]
    for phase in (0, plan.stride // 2, plan.stride - 1):
        assert set(channel[phase :: plan.stride][: plan.count]) == set(range(shape[-1]))


def test_the_law_can_fail():
    # The mutant: numel // limit without the coprime rule sees 8 of 384 channels.
    channel = np.arange(8 * 64 * 384) % 384
    assert len(set(channel[::48][:4096])) == 8


def test_small_tensors_are_taken_whole():
    assert sample_plan((4096,)).count == 4096
    assert sample_plan((64, 64)).stride == 1
    assert sample_plan(()).count == 1


def test_sampled_weight_stands_for_nearly_all_elements():
    for shape in SHAPES:
        plan = sample_plan(shape)
        assert plan.count * plan.weight == pytest.approx(prod(shape), rel=0.15)
