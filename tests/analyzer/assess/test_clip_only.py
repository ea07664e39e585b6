"""A model of which only clipping is measured: no reference, and the clipped share is told."""

from dataclasses import replace

import numpy as np
import pytest

from calidrift_agent._profile import CalibrationProfile, ClipBound, Fingerprint, PointProfile
from calidrift_agent._state import empty_values
from calidrift_agent._vocabulary import CountColumn, Instrument
from calidrift_analyzer.records import Verdict


@pytest.mark.parametrize(("high", "words"), [(120, "12 %"), (0, "")])
def test_the_clipped_share_is_in_the_sentence(bench, high, words):
    bench.calibrate({"a:output": bench.normal(16)})
    bound = ClipBound.of_quantizer(0.1, 128, 0, 255, "quint8")
    bench.profile = CalibrationProfile(
        {"a:output": PointProfile("a:output", bound, rail_low_rate=0.0, rail_high_rate=0.0)},
        16,
        Instrument.CLIP,
        Fingerprint(),
        bench.profile.created,
    )
    meta = bench.traffic.meta(points=("a:output",), profile=bench.profile.digest)
    bench.meta = replace(meta, instrument=Instrument.CLIP)
    window = bench.traffic.unit_window(0, [bench.normal(10)], [None])
    window.counts[0] = 0
    window.cells[0] = 0
    window.values[0] = empty_values(1)[0]
    window.requests[:] = np.minimum(window.requests, 0)
    window.counts[0, CountColumn.ROWS] = 10
    window.counts[0, CountColumn.ELEMENTS] = 1000
    window.counts[0, CountColumn.CLIP_ELEMENTS] = 1000
    window.counts[0, CountColumn.CLIP_HIGH] = high
    bench.store.ingest(bench.meta, [window], batch=1)
    found = bench.assess().points[0]
    assert found.verdict is Verdict.NO_REFERENCE
    assert "10 rows observed" in found.sentence
    assert (f"{words} of the values that its quantizer saw were clipped" in found.sentence) is bool(
        words
    )
    assert found.clipped_energy is None
