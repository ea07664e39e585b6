from __future__ import annotations

import pytest

from calidrift_agent._capture import CaptureOptions
from calidrift_agent.errors import ConfigurationError


def test_defaults():
    options = CaptureOptions()
    assert options.max_bytes == 268_435_456
    assert (options.max_count, options.max_sample_bytes, options.reservoir) == (512, 2**20, 64)
    assert (options.max_per_hour, options.max_disk_use, options.ttl_hours) == (1000, 0.9, 720.0)
    assert not options.encrypt


@pytest.mark.parametrize(
    "options",
    [
        {"max_bytes": 0},
        {"max_count": -1},
        {"max_count": 2.5},
        {"max_sample_bytes": True},
        {"reservoir": -1},
        {"per_point": 0},
        {"max_bytes": 100, "max_sample_bytes": 101},
        {"reservoir": 513},
        {"inputs": "image"},
        {"inputs": (3,)},
        {"inputs": ()},
        {"inputs": []},
        {"inputs": 5},
        {"inputs": {"image"}},
        {"redact": "mask"},
        {"seed": -1},
        {"seed": "x"},
        {"segments": -1},
        {"max_per_hour": 0},
        {"max_disk_use": 0},
        {"max_disk_use": 90},
        {"max_disk_use": "90%"},
        {"max_disk_use": True},
        {"ttl_hours": 0},
        {"ttl_hours": float("inf")},
        {"ttl_hours": float("nan")},
        {"ttl_hours": "24"},
        {"encrypt": "key"},
        {"encrypt": 1},
    ],
)
def test_unusable_options_are_refused(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        CaptureOptions(**options)
