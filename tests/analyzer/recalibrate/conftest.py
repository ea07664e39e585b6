"""Capture files, written by the agent's own writer."""

import numpy as np
import pytest

from calidrift_agent._capture import CaptureOptions, CaptureRow, CaptureWriter


@pytest.fixture
def capture(tmp_path):
    """Write one captured row and give its file."""
    written = []

    def write(inputs, bfloat16=()):
        folder = tmp_path / f"captures{len(written)}"
        writer = CaptureWriter(folder, "tiny", "", ("a:input",), CaptureOptions(reservoir=0))
        row = CaptureRow(
            inputs=inputs,
            maxima=np.ones(1, np.float32),
            uncovered=True,
            time_ns=1,
            bfloat16=tuple(bfloat16),
        )
        assert writer.offer(row) is None
        (path,) = folder.rglob("*.safetensors")
        written.append(path)
        return path

    return write
