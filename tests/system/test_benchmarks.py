"""The benchmarks still run; what they measure is printed by `make bench`, never asserted here."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from calidrift_agent import watch
from calidrift_analyzer.config import ServiceConfig
from calidrift_analyzer.jobs import Order, order_job
from calidrift_analyzer.records import Trigger
from calidrift_analyzer.store import Store

RUN = Path(__file__).resolve().parents[1] / "benchmarks" / "run.py"


@pytest.fixture
def benchmark(monkeypatch):
    """Import a benchmark by name, as `run.py` does; its modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(RUN.parent))
    before, threads = set(sys.modules), torch.get_num_threads()
    torch.set_num_threads(1)
    yield importlib.import_module
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if (RUN.parent / f"{name}.py").is_file():
            del sys.modules[name]


@pytest.mark.slow
def test_the_quick_form_runs_and_keeps_its_figures(tmp_path):
    kept = tmp_path / "figures.json"
    ended = subprocess.run(
        [sys.executable, RUN, "--quick", "--json", kept, "unsampled", "state_file"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    figures = json.loads(kept.read_text())
    assert set(figures) == {"unsampled", "state_file"}
    # The one figure that is not a time: torn windows, and a control that must have some.
    assert figures["state_file"]["torn"]["protocol"] == 0
    assert figures["state_file"]["torn"]["control without it"] > 0


def test_an_unknown_benchmark_is_refused_by_name():
    ended = subprocess.run(
        [sys.executable, RUN, "speed"], capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 2
    assert "no benchmark speed; there are unsampled" in ended.stderr


def test_a_sampled_pass_is_measured_against_its_peers(benchmark, capsys):
    networks, sampled_pass = benchmark("networks"), benchmark("sampled_pass")
    case = sampled_pass.Case("tiny", lambda: (networks.chain(4), torch.randn(2, 8)), 3, 1.04)

    figures = sampled_pass.measure(case, 3)

    assert {"A/A", "in-request", "total", "MinMaxObserver", "HistogramObserver"} <= set(figures)
    assert figures["total"]["rounds"] == 3
    assert {"over_histogram", "self_over_minmax"} <= set(figures)
    assert set(figures["self_percent"]) == {"calidrift", "MinMaxObserver", "HistogramObserver"}
    assert min(figures["self_percent"].values()) > 0, "every tap was clocked"
    assert "tiny: plain" in capsys.readouterr().out


def test_a_drain_is_measured(benchmark):
    figures = benchmark("drain").measure(3, (2, 4, 64), 4)

    assert figures["low"] <= figures["ms"] <= figures["high"]
    assert {"gap_ms", "gap_p95_ms", "control_gap_ms", "control_gap_p95_ms"} <= set(figures)
    assert sys.getswitchinterval() > 1e-4, "the interval of the measurement is gone"


def test_a_sidecar_is_measured(benchmark, monkeypatch, capsys):
    sidecar = benchmark("sidecar")
    monkeypatch.setattr(sidecar, "POINTS", 3)
    monkeypatch.setattr(sidecar, "PROCESSES", 2)

    figures = sidecar.main(quick=True)

    assert {"whole", "reading", "raw", "ratio", "start_s", "rss_mb", "end_s"} <= set(figures)
    assert figures["series"] > 3 * 15, "every point appears"
    assert "memory after three scrapes" in capsys.readouterr().out


@pytest.mark.slow
def test_a_service_is_measured(benchmark, monkeypatch, capsys):
    service = benchmark("service")
    monkeypatch.setattr(benchmark("service_month"), "POINTS", 3)
    monkeypatch.setattr(benchmark("sidecar"), "POINTS", 3)

    figures = service.main(quick=True)

    assert {"bare query", "overview", "heat map", "page of net"} <= set(figures["answers"])
    assert 0 < figures["pages"]["bytes"] < 200_000
    assert figures["idle"]["rss_mb"] > 20
    assert figures["idle"]["torch"] == 0
    assert (figures["webhooks"]["lost"], figures["webhooks"]["doubled"]) == (0, 0)
    assert figures["webhooks"]["sent"] == 50
    assert figures["webhooks"]["jobs"] > 0
    assert "webhooks at 50/s" in capsys.readouterr().out


def test_a_lost_alert_and_a_second_job_are_counted(benchmark, tmp_path):
    service = benchmark("service")
    path, rules = tmp_path / "calidrift.duckdb", ServiceConfig()
    with Store.open(path) as store:
        for number, model in enumerate(("m0", "m1", "m2")):
            key = f"alertmanager:{model}:{number:016x}:2026-01-01T00:00:00+00:00"
            told = {"trigger": Trigger.ALERTMANAGER, "cause": "", "actor": "local"}
            order_job(store, Order(model=model, key=key, **told), rules)

    def found(taken):
        counted = service.examine(path, taken)
        return counted["lost"], counted["doubled"]

    alerts = {0: ({1}, [202, 202]), 1: ({2}, [202]), 2: ({3}, [202])}
    assert found(alerts) == (0, 0)
    assert found({**alerts, 3: (set(), [202])}) == (1, 0), "no trace of it"
    assert found({**alerts, 1: ({2, 9}, [202, 202])}) == (1, 0), "a job that is nowhere"
    assert found({0: alerts[0], 1: alerts[1]}) == (0, 1), "a job that no alert has led to"


GOOD = {
    "seed": 3,
    "fp32_accuracy": 0.98,
    "stale_int8_accuracy": 0.88,
    "recalibrated_int8_accuracy": 0.975,
    "sketch_only_int8_accuracy": 0.97,
    "fp32_worst_segment_accuracy": 0.97,
    "stale_worst_segment_accuracy": 0.70,
    "request_coverage_before": 0.2,
    "request_coverage_after": 0.99,
    "alarm_before_shift": False,
    "observed_until_alarm": 20,
    "requests_until_alarm": 200,
    "overhead_ratio": 1.1,
    "latency_ratio_int8_to_fp32": None,
    "size_ratio": 3.97,
    "int8_kernels_planned": 10,
    "int8_kernels_found": 10,
    "wall_seconds": 100.0,
    "promoted_candidate": "sketch-absmax",
}
BAD = {
    "FP32 at least 94 %": {"fp32_accuracy": 0.93, "recalibrated_int8_accuracy": 0.93},
    "stale at least 5 points below FP32": {"stale_int8_accuracy": 0.94},
    "stale at least 15 points below FP32 in the worst segment": {
        "stale_worst_segment_accuracy": 0.83
    },
    "recalibrated within 1 point of FP32": {"recalibrated_int8_accuracy": 0.96},
    "sketch-only within 1.5 points of FP32": {"sketch_only_int8_accuracy": 0.96},
    "alarm within 50 observed requests": {"observed_until_alarm": 51},
    "no alarm before the shift": {"alarm_before_shift": True},
    "size ratio at least 3.9": {"size_ratio": 3.89},
    "every INT8 kernel": {"int8_kernels_found": 9},
    "under 4 minutes": {"wall_seconds": 240.0},
}


@pytest.mark.parametrize("bar", BAD)
def test_every_bar_of_the_demo_can_be_missed(benchmark, bar):
    seeds = benchmark("demo_seeds")

    assert set(BAD) == set(seeds.BARS)
    assert seeds.missed_bars(GOOD) == []
    assert bar in seeds.missed_bars({**GOOD, **BAD[bar]})


def test_a_figure_that_is_missing_clears_no_bar(benchmark):
    seeds = benchmark("demo_seeds")

    without = {key: value for key, value in GOOD.items() if key != "size_ratio"}
    assert seeds.missed_bars(without) == ["size ratio at least 3.9"]
    assert seeds.missed_bars({**GOOD, "observed_until_alarm": None}) == [
        "alarm within 50 observed requests"
    ]


def test_missed_bars_are_named_with_their_seeds_and_end_with_status_1(
    benchmark, capsys, monkeypatch
):
    seeds = benchmark("demo_seeds")
    documents = {0: GOOD, 1: {**GOOD, "size_ratio": 3.0}, 2: None, 3: {**GOOD, "size_ratio": 3.0}}
    monkeypatch.setattr(seeds, "SEEDS", range(4))
    monkeypatch.setattr(seeds, "run", documents.get)

    figures = seeds.main()

    told = capsys.readouterr().out.splitlines()
    assert told[-3:] == [
        "1 of 4 seeds clear every bar",
        "MISSED: the demo ends with a result: seed 2",
        "MISSED: size ratio at least 3.9: seed 1, 3",
    ]
    assert seeds.exit_code(figures) == 1
    assert seeds.exit_code(seeds.main(quick=True)) == 0, "seed 0 clears every bar"


@pytest.mark.parametrize(("document", "status"), [(GOOD, 0), ({**GOOD, "size_ratio": 3.0}, 1)])
def test_the_command_ends_with_that_status_and_keeps_the_figures(
    benchmark, monkeypatch, tmp_path, document, status
):
    kept = tmp_path / "figures.json"
    monkeypatch.setattr(benchmark("demo_seeds"), "run", lambda seed: document)
    monkeypatch.setattr(sys, "argv", ["run.py", "--quick", "--json", str(kept), "demo_seeds"])

    assert benchmark("run").main() == status
    assert json.loads(kept.read_text())["demo_seeds"]["documents"]["0"] == document


@pytest.mark.parametrize(
    ("figure", "word"),
    [
        ({"us": 0.5, "low": 0.4, "high": 0.9}, "met"),
        ({"us": 1.2, "low": 1.1, "high": 1.3}, "MISSED"),
        ({"us": 1.0, "low": 0.9, "high": 1.1}, "unclear"),
        (1.0, "met"),
        (1.1, "MISSED"),
        (None, "not measured"),
        ({}, "not measured"),
    ],
)
def test_a_bar_is_met_missed_or_unclear(benchmark, figure, word):
    assert benchmark("bars").verdict(figure, 1.0)[1] == word


def test_the_table_of_bars_holds_what_was_measured_and_counts_what_was_missed(benchmark, capsys):
    bars = benchmark("bars")
    figures = {
        "unsampled": {"held_10": {"us": 0.5, "low": 0.4, "high": 0.6}},
        "state_file": {"update_40": {"us": 150.0, "low": 140.0, "high": 160.0}, "torn": {}},
        "sampled_pass": {"python": {"encoder 1x32": {"over_histogram": 0.3}}},
    }

    assert bars.judge(figures) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert [line.split()[-1] for line in lines[1:4]] == ["met", "MISSED", "MISSED"]
    assert lines[-1].strip() == "3 bars: 2 missed, 0 unclear, 1 met"
    assert bars.judge({"demo_seeds": {}}) == 0


def test_every_bar_has_a_name_and_a_place_of_its_own(benchmark):
    bars = benchmark("bars").BARS
    assert len({bar.words for bar in bars}) == len({bar.path for bar in bars}) == len(bars)


def test_missed_bars_end_with_status_1_unless_there_were_few_rounds(benchmark, monkeypatch):
    run, drain = benchmark("run"), benchmark("drain")
    slow = {"40 points, kept whole, 4096 elements": {"ms": 9.0, "low": 8.0, "high": 10.0}}
    monkeypatch.setattr(drain, "main", lambda quick: slow)
    monkeypatch.setattr(sys, "argv", ["run.py", "drain"])
    assert run.main() == 1
    monkeypatch.setattr(sys, "argv", ["run.py", "--quick", "drain"])
    assert run.main() == 0


def test_a_benchmark_in_a_process_of_its_own_brings_its_figures_back(benchmark, tmp_path):
    children = benchmark("children")
    program = tmp_path / "small.py"
    program.write_text(
        "import os, sys\nsys.path.insert(0, sys.argv[sys.argv.index('--at') + 1])\n"
        "from children import leave\nleave({'word': os.environ['WORD']}, sys.argv)\n"
    )
    children.__file__ = str(tmp_path / "children.py")
    found = children.measure_apart("small", "--at", str(RUN.parent), WORD="yes")
    assert found == {"word": "yes"}


def test_a_gate_can_be_taken_out_and_put_back(benchmark):
    gates, networks = benchmark("gates"), benchmark("networks")
    model = networks.chain(2)
    with watch(model, name="bench") as one:
        gate = gates.gate_of(one)
        gates.take_out(gate)
        assert "forward" not in model.__dict__
        gate.attach()
        assert gate.attached
    assert "forward" not in model.__dict__


def test_a_server_is_compared_with_itself(benchmark, capsys):
    server, networks = benchmark("server"), benchmark("networks")
    latencies = server.serve(networks.chain(2), torch.randn(1, 8), 1.0)
    assert len(latencies) > 10
    assert latencies.min() > 0
    assert set(server.KINDS) == {"eager", "int8"}
