"""One process that promotes by a job, or rolls back, and runs the hook; it is killed on the way.

    python harness.py ROOT WORK HOLD

WORK is `promote`, `rollback` (after two promotions and their hooks) or `serve`; HOLD is `record`
(moved, not recorded), `hook` (recorded, hook not begun), `command` (hook under way) or `-`.
ROOT/at-work appears when it has come there.
"""

import dataclasses
import importlib.util
import sys
import threading
import time
from pathlib import Path

from calidrift_analyzer.config import DeployConfig
from calidrift_analyzer.deploy import Courier
from calidrift_analyzer.jobs import DirectDatabase, Order, Worker, _actions, order_job, roll_back
from calidrift_analyzer.records import Trigger
from calidrift_analyzer.store import Store

JOBS = Path(__file__).parents[1] / "jobs" / "harness.py"
SPEC = importlib.util.spec_from_file_location("jobs_harness", JOBS)
harness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(harness)
ROLLBACK = _actions.rollback


def hold(root):
    (root / "at-work").touch()
    time.sleep(600)


def held_rollback(root):
    def moved(*args):
        version = ROLLBACK(*args)
        hold(root)
        return version

    return moved


def promote(root, store, config):
    number = len(store.jobs.page())
    order = Order(model="net", trigger=Trigger.COMMAND, cause="", actor="us", key=f"order {number}")
    order_job(store, order, config.service)
    stages = harness.Stages(root, "-")
    Worker(DirectDatabase(store), config, stages).run_until_idle()


def main(root: Path, work: str, place: str) -> None:
    config = harness.configured(root)
    contract = config.models["net"]
    deploy = DeployConfig(command=(sys.executable, str(root / "hook.py")))
    contract = dataclasses.replace(contract, deploy=deploy)
    service = dataclasses.replace(config.service, daily_cap=100)
    config = dataclasses.replace(config, models={"net": contract}, service=service)
    if place == "record":
        _actions.rollback = held_rollback(root)
    with Store.open(config.database) as store:
        if work == "promote":
            promote(root, store, config)
        if work == "rollback":
            for _ in range(2):
                promote(root, store, config)
                Courier(DirectDatabase(store), contract).deliver()
            roll_back(DirectDatabase(store), contract, None, actor="us")
        if place == "hook":
            hold(root)
        ended = threading.Event()
        courier = Courier(DirectDatabase(store), contract, on_end=lambda row: ended.set())
        courier.start()
        assert ended.wait(120.0), "no hook came to an end"
        courier.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
