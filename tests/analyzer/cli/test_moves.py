"""What `calidrift promote` and `rollback` look at first, and what the audit keeps of them."""

import importlib.util
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from calidrift_agent._registry import VersionLayout, read_pointer
from calidrift_analyzer.cli._person import user_name
from calidrift_analyzer.config import load_config
from calidrift_analyzer.cycle import save_report
from calidrift_analyzer.jobs import freeze
from calidrift_analyzer.service import Service, create_application
from calidrift_analyzer.store import Store

SPEC = importlib.util.spec_from_file_location(
    "harness", Path(__file__).parents[1] / "jobs" / "harness.py"
)
harness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(harness)

CONFIG = """
[analyzer]
database = "store.duckdb"

[service]
port = 0

[models.net]
factory = "shop_code:build"
example_inputs = "shop_code:example"
calibration = "shop_code:calibration"
evaluate = "shop_code:evaluate"
"""


@pytest.fixture
def validated(shop):
    """A shop with two versions, and a validated candidate."""
    shop.configure(CONFIG)
    shop.config = load_config(shop.root / "calidrift.toml", variables={})
    report = harness.make_report(harness.make_candidate(shop.root / "candidate"))
    save_report(shop.config.models["net"], report)
    for _ in range(2):
        assert shop.run("promote")[0] == 0
    return shop


def serving(shop):
    return read_pointer(VersionLayout(shop.config.models["net"].registry, "net")).version


def audit(shop):
    with Store.open(shop.config.database) as store:
        return [(row.actor, row.action, row.subject) for row in store.jobs.audit()]


@contextmanager
def service_of(shop):
    """The service, holding the database, on a port of its own."""
    service = Service(shop.config, stages=harness.Stages(shop.root, "-"))
    service.start()
    application = create_application(service)
    server = uvicorn.Server(
        uvicorn.Config(application, port=0, log_config=None, lifespan="off", access_log=False)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        yield service, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30.0)
        service.stop()


@pytest.mark.parametrize("model", ["", "net"])
@pytest.mark.parametrize("word", ["promote", "rollback"])
def test_a_frozen_model_is_left_alone(word, model, validated):
    with Store.open(validated.config.database) as store:
        freeze(store, model, frozen=True, actor="eve", note="exam week")
    before = serving(validated)

    status, _, said = validated.run(word)

    assert (status, serving(validated)) == (1, before)
    told = " ".join(said.split())
    assert f"{model or 'every model'} was frozen by eve (exam week); thaw it first: " in told
    assert (user_name(), word, "") in audit(validated), "what was refused is in the audit"
    with Store.open(validated.config.database) as store:
        freeze(store, model, frozen=False, actor="eve", note="")
    assert validated.run(word)[0] == 0
    assert serving(validated) != before


def test_moves_are_in_the_audit_with_who_made_them(validated):
    first, second = (row[2] for row in reversed(audit(validated)))
    assert serving(validated) == second

    validated.run("rollback")

    assert audit(validated) == [
        (user_name(), "rollback", first),
        (user_name(), "promote", second),
        (user_name(), "promote", first),
    ]


def test_a_running_service_makes_the_rollback(validated):
    with service_of(validated) as (_, url):
        status, document = validated.json("rollback", "--url", url)
        assert (status, document["action"]) == (0, "rolled_back")
        assert document["sentence"] == f"{serving(validated)} serves again"

    [(actor, *what), *_] = audit(validated)
    assert actor.startswith(user_name())
    assert what == ["rollback", serving(validated)]


@pytest.mark.parametrize("word", ["promote", "rollback"])
def test_the_freeze_of_a_running_service_holds(word, validated):
    before = serving(validated)
    with service_of(validated) as (service, url):
        service.owner.run(lambda store: freeze(store, "", frozen=True, actor="eve", note=""))

        status, _, said = validated.run(word, "--url", url)

    assert (status, serving(validated)) == (1, before)
    assert "every model was frozen by eve; thaw it first" in " ".join(said.split())


def test_going_back_is_possible_while_the_database_is_broken(validated):
    first = audit(validated)[-1][2]
    validated.config.database.write_bytes(b"no database" * 1_000)

    status, _, said = validated.run("rollback")

    assert (status, serving(validated)) == (0, first)
    assert "whether net is frozen could not be looked up" in said
