"""Takes the pictures of the README: the page of a running service in Chromium, light and dark.

    python docs/take_pictures.py [--workdir FOLDER]

Runs `calidrift demo` in the folder (or uses one that ran there), lets its stale INT8 model serve a
day of traffic, of which the last third has new lighting conditions, and starts `calidrift serve` on
what the agent wrote. The service raises the alarm, recalibrates, validates and waits for an
approval: everything on the pictures is measured in this run. Only the clock is not real: the day is
served in a minute. Needs Chromium (Debian: apt-get install chromium).
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote

import torch
from playwright.sync_api import Browser, sync_playwright
from safetensors.torch import load_file

from calidrift_analyzer.config import load_config
from calidrift_analyzer.demo import DemoOptions, DigitsContract, run_demo
from calidrift_analyzer.demo._data import Condition
from calidrift_analyzer.demo._service import Service, deploy, stale
from calidrift_analyzer.demo._traffic import Traffic
from calidrift_analyzer.demo._workdir import MODEL, Workdir
from calidrift_analyzer.records import Marker
from calidrift_analyzer.store import Store

HERE = Path(__file__).resolve().parent
SEED = 0
WINDOWS, CALM = 48, 32
"""Windows of half an hour, and how many of them before the lighting changes."""
REQUESTS = {True: 60, False: 750}
"""Requests in a window, calm or not: enough of the new conditions to learn their ranges."""
SECOND = 1_000_000_000
STEP = 1_800 * SECOND
DEADLINE = 900.0
SIZE = {"width": 1120, "height": 760}
COMMAND = "from calidrift_agent._command_line import main; main()"


def main() -> None:
    """Takes all pictures anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, help="where the runs go, and are kept")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        root = given.workdir or Path(made)
        demo, day = root / "demo", root / "day"
        if not (demo / "activation-maxima.png").is_file():
            run_demo(DemoOptions(workdir=demo, seed=SEED))
        shutil.copy(demo / "activation-maxima.png", HERE / "activation-maxima.png")
        serve_a_day(demo, day)
        with serving(day) as url:
            wait_for_approval(url)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                for scheme in ("light", "dark"):
                    take(browser, url, scheme)
                browser.close()


def serve_a_day(demo: Path, day: Path) -> None:
    """Serves the demo's stale model under `watch`, by a clock of its own."""
    workdir = Workdir.prepare(day, SEED)
    shutil.copy(demo / "weights.safetensors", workdir.weights)
    with workdir.config.open("a") as config:
        config.write("\n[service]\nport = 0\n")
    contract = DigitsContract(SEED)
    network = contract.factory()
    network.load_state_dict(load_file(workdir.weights))
    network.eval()
    graph, profile = stale(network, contract)
    deployed = deploy(graph, profile, contract.example_inputs())
    options = DemoOptions(workdir=day, seed=SEED, sample_rate=0.1)
    begin = (time.time_ns() // STEP - WINDOWS) * STEP
    now = begin
    with (
        mock.patch.object(time, "time_ns", lambda: now),
        Service.running(deployed, workdir, Traffic(SEED), options) as service,
    ):
        for window in range(WINDOWS):
            calm = window < CALM
            now = begin + (window + 1) * STEP - SECOND
            service.serve(REQUESTS[calm], (Condition.LOW_LIGHT,) if calm else tuple(Condition))
    marker = Marker(
        model=MODEL,
        at_ns=begin + CALM * STEP - 600 * SECOND,
        text="new cameras at gate 4",
        author="ops",
    )
    with Store.open(load_config(workdir.config, variables={}).database) as store:
        store.annotations.mark(marker)


@contextmanager
def serving(day: Path) -> Iterator[str]:
    """`calidrift serve` on the folder; gives its address."""
    words = [sys.executable, "-c", COMMAND, "serve", "--config", str(day / "calidrift.toml")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.communicate()


def wait_for_approval(url: str) -> None:
    """Waits until the job that the alarm ordered has a candidate."""
    until = time.monotonic() + DEADLINE
    state = ""
    while state != "awaiting_approval":
        assert state not in {"refused", "failed"}, ask(url, "/jobs/1")
        assert time.monotonic() < until, "no job came to an approval"
        time.sleep(1.0)
        jobs = ask(url, "/jobs")["items"]
        state = jobs[0]["state"] if jobs else ""


def ask(url: str, path: str) -> Any:
    """One answer of the API."""
    with urllib.request.urlopen(f"{url}/api/v1{path}") as answer:
        return json.load(answer)


def take(browser: Browser, url: str, scheme: Any) -> None:
    """Takes every picture in one colour scheme."""
    worst = ask(url, f"/models/{MODEL}")["worst_point"]
    context = browser.new_context(color_scheme=scheme, viewport=SIZE)
    page = context.new_page()
    for name, path in (
        ("overview", "/"),
        ("model", f"/models/{MODEL}?measure=exceedance&hours=24#heat"),
        ("point", f"/models/{MODEL}/points/{quote(worst, safe='')}?hours=24"),
        ("job", "/jobs/1"),
    ):
        page.goto(url + path)
        page.screenshot(path=HERE / f"{name}-{scheme}.png")
    context.close()


if __name__ == "__main__":
    main()
