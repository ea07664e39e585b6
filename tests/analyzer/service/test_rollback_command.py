"""`calidrift rollback` beside a running service, which holds the database: it is asked."""

import json
import socket
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from calidrift_agent._command_line import run
from calidrift_agent._registry import open_version
from calidrift_analyzer.cli._person import user_name
from calidrift_analyzer.promote import adopt, promote
from calidrift_analyzer.store import Store

JOBS = Path(__file__).parents[1] / "jobs" / "harness.py"
DEADLINE = 120.0
CONFIG = """
[service]
port = {port}
ingest_seconds = 3600
assess_seconds = 3600

[models.net]
factory = "user:factory"
example_inputs = "user:example_inputs"
calibration = "user:calibration"
evaluate = "user:evaluate"
registry = "registry"
"""


@pytest.fixture
def versions(tmp_path):
    """A registry with two versions; gives their names, the one that serves last."""
    spec = spec_from_file_location("jobs_harness", JOBS)
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    candidate = made.make_candidate(tmp_path / "candidate")
    first = adopt(candidate.path, {"a": 1}, tmp_path / "registry", "net")
    report = made.make_report(candidate)
    return first.id, promote(candidate, report, tmp_path / "registry", "net").id


@pytest.fixture
def command(tmp_path, capsys, monkeypatch):
    """Run `calidrift` with --json; gives the document."""
    monkeypatch.delenv("CALIDRIFT_TOKENS", raising=False)
    path = tmp_path / "calidrift.toml"
    path.write_text(CONFIG.format(port=0), encoding="utf-8")

    def call(*words, status=0):
        capsys.readouterr()
        ended = run([*words, "--json", "--config", str(path)])
        found = json.loads(capsys.readouterr().out)
        assert ended == status, found
        return found

    return call


@pytest.mark.slow
def test_the_service_goes_back_keeps_who_did_it_and_refuses_where_it_is_frozen(
    versions, command, answering, tmp_path
):
    first, second = versions
    words = ("-c", "from calidrift_agent._command_line import main; main()", "serve", "--json")
    config = str(tmp_path / "calidrift.toml")
    with answering([sys.executable, *words, "--config", config], limit=DEADLINE) as (_, url):
        back = command("rollback", "net", "--url", url, "--note", "it got worse")
        assert back["sentence"] == f"{first} serves again"
        assert open_version(tmp_path / "registry", "net").id == first

        # Found by its port, as where the port is fixed.
        Path(config).write_text(CONFIG.format(port=url.rpartition(":")[2]), encoding="utf-8")
        command("jobs", "freeze", "net")
        frozen = command("rollback", "net", "--to", second, status=1)
        assert "thaw it first" in frozen["error"]["message"]
        assert open_version(tmp_path / "registry", "net").id == first
        command("jobs", "thaw", "net")
        command("rollback", "net", "--to", second)

        audit = command("jobs", "audit")["items"]
        moves = [row for row in audit if row["action"] == "rollback"]
        assert [(row["subject"], row["outcome"]) for row in moves] == [
            (second, "done"),
            (second, "refused"),
            (first, "done"),
        ]
        # Without tokens a name is a claim, and the audit says so.
        assert {row["actor"] for row in moves} == {f"{user_name()} (local)"}


def test_without_a_service_the_command_does_it_itself(versions, command, tmp_path):
    first, _ = versions

    assert command("rollback", "net")["version"] == first

    with Store.open(tmp_path / "calidrift.duckdb") as store:
        assert [row.version for row in store.outcomes.versions("net")] == [first]


def test_where_another_program_holds_the_database_it_is_done_and_not_recorded(
    versions, command, tmp_path, monkeypatch
):
    from calidrift_analyzer.errors import StoreBusyError
    from calidrift_analyzer.service import _opening

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path / "calidrift.toml"
    config.write_text(CONFIG.format(port=port), encoding="utf-8")

    def busy(path, patience=0.0):
        raise StoreBusyError(f"{path} is held by another process")

    monkeypatch.setattr(_opening.Store, "open", busy)

    assert command("rollback", "net")["version"] == versions[0]
