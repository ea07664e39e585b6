"""`calidrift status` and `calidrift coverage` over a state directory that agents have written."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from calidrift_agent._state import SegmentCount, StateWriter, Window
from calidrift_analyzer.store import Store

CONFIG = """
[analyzer]
state_dirs = ["state"]
database = "calidrift.duckdb"
"""


@pytest.fixture
def watched(shop, traffic):
    """A shop whose model was calibrated on N(0, 1) and serves N(0, scale)."""
    shop.configure(CONFIG)
    folder = shop.root / "state"
    (folder / "profiles").mkdir(parents=True)
    rng = traffic.rng
    profile = traffic.profile(
        {name: rng.normal(size=(512, 32)) for name in ("conv1:input", "fc:input")}
    )
    profile.save(folder / "profiles" / f"{profile.digest}.json")
    bounds = [point.observed_bound.value for point in profile.points.values()]

    def serve(*scales, model="net", name="a"):
        meta = traffic.meta(points=tuple(profile.points), profile=profile.digest, model=model)
        writer = StateWriter.create(folder, meta)
        total = Window.empty(2, number=0)
        for number, scale in enumerate(scales):
            values = [rng.normal(size=(20, 32)), rng.normal(size=(20, 32)) * scale]
            window = traffic.unit_window(number, values, bounds, seen=400)
            covered = int(window.requests[4])
            window = Window(
                **{
                    **{field: getattr(window, field) for field in window.__slots__},
                    "segments": (SegmentCount("night" if scale > 1 else "day", 20, covered),),
                }
            )
            writer.write_closed(window)
            total = window if number == 0 else total.plus(window)
            writer.write_cumulative(total)
        writer.close()

    shop.serve, shop.profile = serve, profile
    return shop


def test_drift_in_words_worst_point_first(watched):
    watched.serve(1.0, 1.0, 3.0)
    status, out, err = watched.run("status")
    assert (status, err) == (0, "")
    assert "net: drifted_harmful" in out
    assert out.index("fc:input") < out.index("conv1:input")
    assert "first alarm at 2027" in out
    assert "after 60 observed units of 1,200 served requests" in out
    assert "next: run `calidrift select`" in out
    assert "smallest exceedance that can ever alarm" in out


def test_one_json_document(watched):
    watched.serve(1.0, 1.0, 3.0)
    status, document = watched.json("status", "net")
    assert status == 0
    model = document["models"][0]
    assert model["verdict"] == "drifted_harmful"
    assert model["worst_point"] == model["points"][0]["name"] == "fc:input"
    assert model["points"][0]["sqnr_change_db"] < -5
    assert model["alarm"]["observed"] == 60
    assert model["sampling_ratio"] == pytest.approx(0.05)
    assert document["collected"]["windows"] == 3
    assert document["collected"]["skipped"] == []


def test_again_collects_nothing_and_says_the_same(watched):
    watched.serve(1.0, 3.0)
    _, first = watched.json("status")
    _, second = watched.json("status")
    assert second["collected"]["windows"] == 0
    assert second["models"][0]["verdict"] == first["models"][0]["verdict"]
    with Store.open(watched.root / "calidrift.duckdb") as store:
        rows = store.outcomes.assessments("net")
        assert len(rows) == 2
        assert json.loads(rows[0].document)["verdict"] == "drifted_harmful"
        assert len(store.outcomes.alarms("net", watched.profile.digest)) == 1


def test_coverage_by_segment_and_point(watched):
    watched.serve(1.0, 1.0, 3.0)
    status, out, _ = watched.run("coverage")
    assert status == 0
    assert out.index("night") < out.index("day")
    assert out.index("fc:input") < out.index("conv1:input")
    assert "of 60 observed units stayed inside the observed bounds" in out
    _, document = watched.json("coverage")
    segments = document["models"][0]["segments"]
    assert [one["name"] for one in segments] == ["night", "day"]
    assert segments[0]["coverage"]["estimate"] < 0.5 < segments[1]["coverage"]["estimate"]


def test_calm_traffic(watched):
    watched.serve(0.9, 0.9)
    status, out, _ = watched.run("status", "net")
    assert status == 0
    assert "net: not_drifted" in out
    assert "next: nothing to do" in out


def test_several_models(watched):
    watched.serve(1.0, model="one")
    watched.serve(1.0, model="two")
    _, document = watched.json("status")
    assert {model["model"] for model in document["models"]} == {"one", "two"}
    _, document = watched.json("status", "two")
    assert [model["model"] for model in document["models"]] == ["two"]


def test_a_corrupt_state_file_is_named_on_standard_error(watched):
    watched.serve(1.0)
    (watched.root / "state" / "bad.state").write_bytes(np.zeros(100, np.uint8).tobytes())
    status, out, err = watched.run("status")
    assert status == 0
    assert "bad.state" in err
    assert "bad.state" not in out
    _, document = watched.json("status")
    assert document["collected"]["skipped"][0]["path"].endswith("bad.state")


def test_a_declared_model_without_traffic_has_no_data(shop):
    status, out, _ = shop.run("status")
    assert status == 0
    assert "shop: no_data" in out
    assert "next: check that the service runs" in out
    status, out, _ = shop.run("coverage")
    assert "shop: no_data" in out
    _, document = shop.json("status")
    assert document["models"][0]["request_coverage"] is None


def test_without_a_reference(watched, traffic):
    meta = traffic.meta(points=("conv1:input",), model="bare")
    writer = StateWriter.create(watched.root / "state", meta)
    window = traffic.unit_window(0, [np.ones((5, 4))], [None])
    writer.write_closed(window)
    writer.write_cumulative(window)
    writer.close()
    status, out, _ = watched.run("coverage", "bare")
    assert "bare: no_reference" in out
    assert "calidrift calibrate" in out
    assert status == 0


def test_an_unknown_model_is_a_usage_error(watched):
    watched.serve(1.0)
    status, out, err = watched.run("status", "nett")
    assert (status, out) == (2, "")
    assert "known: net" in err


def test_nothing_at_all_is_a_usage_error(shop):
    shop.configure("")
    status, _, err = shop.run("status")
    assert status == 2
    assert "state_dirs" in err


def test_two_analyzers(watched):
    """The second one is told who holds the database, in one sentence."""
    watched.serve(1.0)
    code = "import sys; from calidrift_agent._command_line import run; sys.exit(run(sys.argv[1:]))"
    words = ["status", "--config", str(watched.root / "calidrift.toml")]
    with Store.open(watched.root / "calidrift.duckdb"):
        ended = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120
        )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"held by process {os.getpid()}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert watched.run("status")[0] == 0
