"""`calidrift select` on captures that a real watch kept."""

import json
import math

import pytest
import torch
from torch import nn

from calidrift_agent import CaptureOptions, WatchOptions, calibrate, request_context, watch
from calidrift_analyzer.cli import _select
from calidrift_analyzer.errors import NoDataError

torch.set_num_threads(1)

MODEL = """
[models.shop]
factory = "shop_code:build"
example_inputs = "shop_code:example"
calibration = "shop_code:calibration"
evaluate = "shop_code:evaluate"
"""


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()


@pytest.fixture
def served(shop):
    """A shop that served calm traffic by day and twice as loud traffic by night."""
    state = shop.root / "state"
    shop.configure(f'[analyzer]\nstate_dirs = ["{state}"]\n' + MODEL)
    model = network()
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(16, 4, generator=generator) for _ in range(8)]
    profile = calibrate(model, rows)

    def serve(loud=2.0, extra=(), name="shop"):
        watched = watch(
            model,
            name=name,
            profile=profile,
            state_dir=state,
            sample_rate=1.0,
            capture=CaptureOptions(seed=0),
            options=WatchOptions(budget=1.0, seed=0),
        )
        with watched:
            for number in range(24):
                night = number >= 12
                batch = torch.randn(4, 4, generator=generator) * (loud if night else 0.5)
                with request_context(segment="night" if night else "day"):
                    model(batch)
            for batch in extra:
                model(batch)
        return shop

    return serve


def test_loud_requests_are_picked_and_the_certificate_is_told(served):
    shop = served()

    status, document = shop.json("select", "--budget", "6")

    assert status == 0, document
    assert document["budget"] == 6
    assert 0 < len(document["selected"]) <= 6
    assert document["selected_by"] == {"night": len(document["selected"])}
    assert document["uncovered"] >= len(document["selected"])
    assert 0.632 <= document["certificate"] <= 1.0
    assert {one["picked_by"] for one in document["selected"]} <= {"range", "random"}
    assert all(one["ratio"] > 1 for one in document["selected"])
    assert all(one["worst_point"] in {"0:input", "2:input"} for one in document["selected"])


def test_the_list_is_saved_with_the_path_of_every_request(served):
    shop = served()

    _, document = shop.json("select", "--budget", "4")

    saved = json.loads((shop.root / "shop.selection.json").read_text())
    assert document["saved"] == str(shop.root / "shop.selection.json")
    assert saved == {key: value for key, value in document.items() if key != "saved"}
    assert len({one["path"] for one in saved["selected"]}) == len(saved["selected"])


def test_people_see_the_picks_and_the_certificate(served):
    status, out, err = served().run("select", "shop", "--budget", "4")

    assert status == 0, err
    assert "captured requests exceed a bound; 4 picked, at most 4" in out
    assert "by segment: night 4" in out
    assert "certificate: at least" in out
    assert "saved as" in out


def test_a_long_list_is_cut_for_people_and_whole_for_machines(served, monkeypatch):
    monkeypatch.setattr(_select, "_SHOWN", 3)
    shop = served()

    _, document = shop.json("select", "--budget", "8")
    _, out, _ = shop.run("select", "--budget", "8")

    picked = [one["id"] for one in document["selected"]]
    assert [one in out for one in picked] == [True] * 3 + [False] * (len(picked) - 3)
    assert f"and {len(picked) - 3} requests more, all in the file" in out
    assert "next: calidrift recalibrate shop" in out


def test_flags_win_over_the_file(served):
    shop = served()
    text = (shop.root / "calidrift.toml").read_text()
    shop.configure(text + "select_budget = 2\nrandom_share = 1.0\n")

    by_file = shop.json("select")[1]
    by_flag = shop.json("select", "--budget", "3", "--random-share", "0")[1]

    assert [one["picked_by"] for one in by_file["selected"]] == ["random", "random"]
    assert by_flag["selected"][0]["picked_by"] == "range"
    assert by_flag["budget"] == 3


def test_a_request_that_stands_out_alone_is_named_and_kept_out(served):
    shop = served(extra=[torch.full((1, 4), 1e4), torch.full((1, 4), math.nan)])

    status, out, err = shop.run("select")

    assert status == 0
    assert "kept out" in err
    assert "look at it before using it" in err
    assert "1e+04" not in out


def test_without_uncovered_traffic_nothing_is_picked(served):
    status, document = served(loud=0.5).json("select")

    assert status == 0
    assert document["selected"] == []
    assert document["certificate"] == 1.0
    assert document["captured"] > 0


def test_people_read_that_there_is_nothing_to_pick(served):
    status, out, _ = served(loud=0.5).run("select")

    assert status == 0
    assert "nothing to pick: every captured request is inside the observed bounds" in out
    assert "certificate" not in out


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("other", ("select",), "nothing was recorded about model 'shop'"),
        ("shop", ("select", "--budget", "0"), "models.shop.select_budget is 0; allowed is a whole"),
        ("shop", ("select", "--random-share", "2"), "models.shop.random_share is 2.0; allowed"),
        ("shop", ("select", "-o", "/proc/no/where.json"), "the selection cannot be saved as"),
    ],
    ids=["other name", "budget", "share", "no place"],
)
def test_a_mistake_is_one_sentence(name, words, told, served):
    status, out, err = served(name=name).run(*words)

    assert status == NoDataError.exit_code == 2
    assert told in err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err


def test_a_damaged_capture_is_told_and_the_rest_goes_on(served):
    shop = served()
    damaged = sorted((shop.root / "state/captures").rglob("*.safetensors"))[0]
    shop.json("select")
    damaged.write_bytes(damaged.read_bytes()[:-8])

    status, document = shop.json("select")

    assert status == 0
    assert document["captured"] > 0
