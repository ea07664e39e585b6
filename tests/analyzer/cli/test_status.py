"""`calidrift status` and `calidrift coverage` over a state directory that agents have written."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_agent import WatchOptions, watch
from calidrift_agent._command_line import run
from calidrift_agent._state import SegmentCount, StateWriter, Window
from calidrift_agent._vocabulary import RequestColumn
from calidrift_analyzer.records import VersionRow
from calidrift_analyzer.store import Store

COMPARED = slice(RequestColumn.COMPARED, RequestColumn.DISTANCE_PPB + 1)
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
            window.requests[COMPARED] = shop.compare
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

    shop.serve, shop.profile, shop.compare = serve, profile, 0
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


def test_the_comparison_with_the_reference_is_shown(watched, traffic):
    watched.serve(1.0)
    _, out, _ = watched.run("status")
    assert "beside the FP32 reference" not in out
    watched.compare = (100, 50, 40, 1_000_000_000, 500_000_000)
    watched.serve(1.0, name="b")
    status, out, _ = watched.run("status")
    line = "beside the FP32 reference: output SQNR 20.0 dB, cosine 0.9900, the same top-1 in 80 %"
    assert status == 0
    assert f"{line} (100 units compared)" in out
    _, document = watched.json("status", "net")
    assert document["models"][0]["reference"] == {
        "compared": 100,
        "sqnr_db": pytest.approx(20.0),
        "cosine": pytest.approx(0.99),
        "agreement": 0.8,
    }


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
    code = (
        "import sys; from calidrift_agent._command_line import run; "
        "from calidrift_analyzer.service import _opening; _opening.COMMAND_PATIENCE = 0.0; "
        "sys.exit(run(sys.argv[1:]))"
    )
    words = ["status", "--config", str(watched.root / "calidrift.toml")]
    with Store.open(watched.root / "calidrift.duckdb"):
        ended = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120
        )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"held by process {os.getpid()}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert watched.run("status")[0] == 0


def watch_requests(shop, model, requests=30):
    """Serve a model of one's own under a watch without a profile, every request sampled."""
    shop.configure(CONFIG)
    options = WatchOptions(budget=None, seed=0)
    with (
        torch.no_grad(),
        watch(
            model.eval(),
            name="net",
            state_dir=shop.root / "state",
            sample_rate=1.0,
            options=options,
        ),
    ):
        for _ in range(requests):
            list(model(torch.ones(2, 4)))


def test_a_service_without_a_profile_is_not_without_data(shop):
    watch_requests(shop, nn.Sequential(nn.Linear(4, 4)))

    _, out, _ = shop.run("status")

    assert "net: no_reference" in out
    assert "observed: 30 of 30 requests (100 %)" in out
    assert "- 0:input: 60 rows observed, but there is no bound to compare them with" in out
    assert "next: run `calidrift calibrate`" in out


class Streaming(nn.Module):
    """Its layer runs after forward has returned, where no tap sees it."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        yield self.inner(x)


def test_a_service_in_which_nothing_can_be_read_is_blind(shop):
    watch_requests(shop, Streaming())

    _, out, _ = shop.run("status")

    assert "net: blind" in out
    assert "requests were sampled, but no point fired in any of them" in out
    assert "observed: 0 of 30 requests" in out


def test_the_wrong_folder_is_told_and_gets_no_database(tmp_path, monkeypatch, capsys):
    for name in [name for name in os.environ if name.startswith("CALIDRIFT_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    status = run(["status"])

    assert status == 2
    told = capsys.readouterr().err
    assert f"there is no calidrift.toml in {tmp_path}" in told
    assert "--config FILE" in told
    assert list(tmp_path.iterdir()) == []


def test_a_promoted_version_that_no_service_has_loaded_is_told(watched, traffic):
    watched.serve(1.0)
    watched.run("status")
    newer = traffic.profile({"fc:input": traffic.rng.normal(size=(8, 32))})
    move = VersionRow(
        model="net",
        version="000002-abc",
        action="promoted",
        created_ns=1_800_000_100_000_000_000,
        profile=newer.digest,
        document="{}",
    )
    with Store.open(watched.root / "calidrift.duckdb") as store:
        store.outcomes.record_version(move)
    _, _, err = watched.run("status")
    assert "net: 000002-abc is the registry's current version since 2027-01-15 08:01:40" in err
    assert "until the service loads this one" in err

    with Store.open(watched.root / "calidrift.duckdb") as store:
        store.outcomes.record_version(replace(move, profile=watched.profile.digest))
    _, _, err = watched.run("status")
    assert err == "", "the version whose traffic is judged is the current one"


def test_many_drifted_points_are_told_in_the_table_and_only_the_worst_in_words(shop, traffic):
    shop.configure(CONFIG)
    folder = shop.root / "state"
    (folder / "profiles").mkdir(parents=True)
    names = [f"layer{number}:input" for number in range(6)]
    profile = traffic.profile({name: traffic.rng.normal(size=(512, 32)) for name in names})
    profile.save(folder / "profiles" / f"{profile.digest}.json")
    writer = StateWriter.create(folder, traffic.meta(points=tuple(names), profile=profile.digest))
    bounds = [point.observed_bound.value for point in profile.points.values()]
    values = [traffic.rng.normal(size=(40, 32)) * 5.0 for _ in names]
    window = traffic.unit_window(0, values, bounds)
    writer.write_closed(window)
    writer.write_cumulative(window)
    writer.close()

    _, out, _ = shop.run("status")

    assert "6 points of 6, 6 of them with harm" in out
    assert sum(line.startswith("- layer") for line in out.splitlines()) == 3
    assert "- and 3 points more: see the table, or --json" in out


def test_the_least_covered_segments_are_named(watched):
    watched.serve(1.0, 3.0)

    _, out, _ = watched.run("status")

    (line,) = [line for line in out.splitlines() if line.startswith("least covered segments: ")]
    assert line.startswith("least covered segments: night ")
