"""The types of the public API, under test: right uses pass mypy --strict, wrong ones do not."""

import re
import textwrap
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).resolve().parents[2]
USES = Path(__file__).with_name("typed_api.py")

# Every line below `# wrong` is a mistake that users make and a type checker should catch.
WRONG = textwrap.dedent(
    """
    import torch
    from torch import nn
    from calidrift_agent import CalibrationProfile, MagnitudeSketch, calibrate, open_version, watch
    from calidrift_agent import WatchOptions
    model = nn.Linear(2, 2)
    sketch = MagnitudeSketch()
    # wrong
    watch(model)
    watch(model, "resnet18")
    watch(model, name="a", sample_rate="1 %")
    watch(model, name="a", capture=True)
    watch(model, name="a", reference="fp32.pt")
    watch(model, name="a", referense=model)
    watch(model, name="a").reports()
    calibrate(model)
    calibrate(torch.ones(2), [torch.ones(2)])
    CalibrationProfile.load(3)
    sketch.quantile("0.99")
    sketch.count = 3
    open_version("registry")
    WatchOptions(budgett=0.1)
    """
)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What mypy says about both files, in one run over the cache that `make lint` keeps."""
    wrong = tmp_path_factory.mktemp("wrong") / "wrong_api.py"
    wrong.write_text(WRONG, encoding="utf-8")
    out, err, _ = api.run(
        [
            "--config-file",
            str(ROOT / "pyproject.toml"),
            "--cache-dir",
            str(ROOT / ".mypy_cache"),
            "--no-error-summary",
            "--hide-error-context",
            str(USES),
            str(wrong),
        ]
    )
    assert err == ""
    lines = [line for line in out.splitlines() if ": error: " in line]
    return {
        name: {int(re.search(r":(\d+):", line)[1]): line for line in lines if name in line}
        for name in ("typed_api.py", "wrong_api.py")
    }


def test_right_uses_are_accepted(told):
    assert told["typed_api.py"] == {}


def test_every_wrong_use_is_caught(told):
    lines = WRONG.splitlines()
    first = lines.index("# wrong") + 2
    expected = set(range(first, len(lines) + 1))

    assert set(told["wrong_api.py"]) == expected
