"""Training is a function of its seed, and the network is what the demo says it is."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_analyzer.demo._data import Part, originals
from calidrift_analyzer.demo._network import DigitNetwork
from calidrift_analyzer.demo._training import TrainOptions, augment, train


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_network_reuses_one_relu_in_each_block() -> None:
    network = DigitNetwork()
    calls = {name: 0 for name, module in network.named_modules() if isinstance(module, nn.ReLU)}
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, nn.ReLU):

            def count(*_: object, name: str = name) -> None:
                calls[name] += 1

            handles.append(module.register_forward_hook(count))
    assert network.eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    for handle in handles:
        handle.remove()
    assert calls == {"relu": 1, "block1.relu": 2, "block2.relu": 2, "block3.relu": 2}


def test_the_network_has_enough_weights_per_scale_for_the_size_ratio() -> None:
    weights = scales = 0
    for module in DigitNetwork().modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weights += module.weight.numel()
            scales += module.weight.shape[0]
    # One float32 scale and one int64 zero point per output channel, the most anybody stores.
    assert 4 * weights / (weights + 12 * scales) > 3.9


def test_augmentation_is_bounded_and_covers_the_dark() -> None:
    images = originals(Part.SELECT, 0).images
    seen = augment(images, np.random.default_rng(0))
    assert seen.shape == images.shape
    assert seen.dtype == np.float32
    assert seen.min() >= 0.0
    assert seen.max() <= 1.0
    brightest = seen.max(axis=(1, 2, 3))
    assert brightest.min() < 0.2
    assert brightest.max() > 0.9


def test_a_tiny_training_is_deterministic_and_leaves_the_global_state_alone() -> None:
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    steps: list[tuple[int, int]] = []
    options = TrainOptions(seed=3, epochs=1)
    first = train(options, lambda done, total: steps.append((done, total)))
    assert torch.equal(torch.rand(3), expected)
    second = train(options)
    other = train(TrainOptions(seed=4, epochs=1))
    assert steps == [(1, 1)]
    assert not first.training
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert not torch.equal(first.stem.weight, other.stem.weight)
