"""Where the project stands, and a place to plant offenders."""

import textwrap
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the working tree."""
    return _ROOT


@pytest.fixture
def plant(tmp_path):
    """Write one module of a small agent package and give the root that holds it."""

    def write(path: str, text: str) -> Path:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text), encoding="utf-8")
        return tmp_path

    return write
