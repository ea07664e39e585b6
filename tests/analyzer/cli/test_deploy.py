"""`calidrift promote`, `rollback` and `jobs deploy` run the hook in the foreground."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from calidrift_analyzer.config import load_config
from calidrift_analyzer.cycle import save_report
from calidrift_analyzer.store import Store

JOBS = Path(__file__).parents[1] / "jobs" / "harness.py"
SPEC = importlib.util.spec_from_file_location("jobs_harness", JOBS)
harness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(harness)
CONFIG = f"""
[analyzer]
database = "store.duckdb"

[models.net]
factory = "user:factory"
example_inputs = "user:example_inputs"
calibration = "user:calibration"
evaluate = "user:evaluate"

[models.net.deploy]
command = [{json.dumps(sys.executable)}, "hook.py"]
"""
HOOK = """\
import os, sys
with open("notes", "a") as file:
    file.write(os.environ["CALIDRIFT_ACTION"] + " " + os.environ["CALIDRIFT_VERSION"] + "\\n")
print("said by the hook")
sys.exit(3 if os.path.exists("broken") else 0)
"""


@pytest.fixture
def hooked(shop):
    shop.configure(CONFIG)
    (shop.root / "hook.py").write_text(HOOK, encoding="utf-8")
    contract = load_config(shop.root / "calidrift.toml", variables={}).models["net"]
    save_report(contract, harness.make_report(harness.make_candidate(shop.root / "candidate")))
    shop.notes = lambda: (shop.root / "notes").read_text(encoding="utf-8").splitlines()
    return shop


def test_promote_and_rollback_run_it_before_they_end(hooked):
    status, first = hooked.json("promote")
    assert (status, first["deployment"]["state"]) == (0, "delivered")
    assert first["deployment"]["output"] == "said by the hook"
    status, out, _ = hooked.run("promote")
    assert status == 0
    assert "hook delivered" in out
    status, back = hooked.json("rollback")

    assert (status, back["deployment"]["state"]) == (0, "delivered")
    notes = hooked.notes()
    assert (notes[0], notes[2]) == (f"promote {first['version']}", f"rollback {first['version']}")
    assert notes[1].startswith("promote 000002-")


def test_one_that_fails_ends_with_status_1_and_the_version_serves(hooked):
    (hooked.root / "broken").touch()

    status, made = hooked.json("promote")

    assert (status, made["deployment"]["state"]) == (1, "failed")
    assert "calidrift jobs deploy net" in made["deployment"]["sentence"]
    with Store.open(hooked.root / "store.duckdb") as store:
        assert [row.version for row in store.outcomes.versions("net")] == [made["version"]]
    status, _, err = hooked.run("jobs", "deploy", "net")
    assert status == 1
    assert "ended with status 3" in err

    (hooked.root / "broken").unlink()
    status, out, _ = hooked.run("jobs", "deploy", "--note", "mended")

    assert status == 0
    assert "is told again; delivered" in " ".join(out.split())
    assert hooked.notes() == [f"promote {made['version']}"] * 3


def test_one_that_cannot_work_is_refused_before_anything_moves(hooked):
    hooked.configure(CONFIG.replace(json.dumps(sys.executable), '"no-such-program-here"'))

    for words in (("promote",), ("rollback",)):
        status, _, err = hooked.run(*words)
        assert status == 2
        assert "no-such-program-here" in err
    assert not (hooked.root / "registry" / "net" / "versions").exists()


def test_while_another_process_holds_the_database_the_move_is_made_and_said(hooked, monkeypatch):
    from calidrift_analyzer.cli import _versions
    from calidrift_analyzer.errors import StoreBusyError

    def busy(self, work):
        raise StoreBusyError("held by process 7")

    monkeypatch.setattr(_versions.FileDatabase, "run", busy)

    status, _, err = hooked.run("promote")

    assert status == 0
    told = " ".join(err.split())
    assert "not recorded: held by process 7; a running `calidrift serve` notices it" in told
    assert "runs the hook" in told
    assert not (hooked.root / "notes").exists()
