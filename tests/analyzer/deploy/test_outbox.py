"""Moves in the outbox: once, in order, the newest one, and none lost to a kill."""

import dataclasses
import threading
import time

import pytest

from calidrift_agent._registry import VersionLayout
from calidrift_analyzer.deploy import Courier, enqueue_again, notice_move
from calidrift_analyzer.errors import NoDataError, RefusedError
from calidrift_analyzer.promote import publish, rollback
from calidrift_analyzer.records import DeployAction, VersionRow


def record(shop, version, action="promoted"):
    row = VersionRow(
        model="net",
        version=version,
        action=action,
        created_ns=time.time_ns(),
        profile="",
        document="{}",
    )
    shop.store.outcomes.record_version(row)


def test_without_a_hook_nothing_is_kept(shop):
    shop.promote()

    assert shop.rows() == ()
    with pytest.raises(ValueError, match="net has no hook"):
        Courier(shop.outbox, shop.contract)


def test_the_same_move_told_again_is_kept_once(shop):
    shop.script()
    version = shop.promote()

    shop.keep(version, DeployAction.PROMOTE, None)

    assert len(shop.rows()) == 1


def test_a_move_that_another_one_followed_already_is_not_kept(shop):
    shop.script()
    first = shop.promote()
    shop.promote()

    shop.keep(first, DeployAction.PROMOTE, None)

    assert len(shop.rows()) == 2


def test_back_and_forth_are_moves_of_their_own(shop):
    shop.script()
    first, second = shop.promote(), shop.promote()
    for to in (first, second, first):
        shop.roll_back(to)
        shop.deliver()

    told = [(one["CALIDRIFT_ACTION"], one["CALIDRIFT_VERSION"]) for one in shop.notes()]
    assert told == [("rollback", first), ("rollback", second), ("rollback", first)]
    assert len({one["CALIDRIFT_IDEMPOTENCY_KEY"] for one in shop.notes()}) == 3


def test_a_newer_move_takes_the_place_of_one_that_waits(shop):
    shop.script()
    shop.promote()
    second = shop.promote()

    shop.deliver()

    assert shop.states() == ["superseded", "delivered"]
    assert [one["CALIDRIFT_VERSION"] for one in shop.notes()] == [second]
    assert second in shop.rows()[0].sentence


def test_a_newer_move_ends_the_tries_of_an_older_one(shop, server, secret):
    shop.hook(url=server.url, secret_file=secret)
    first = shop.promote()

    def overtake(handler):
        shop.outbox.run(lambda store: shop.promote())
        return 503

    server.answers.append(overtake)

    ended = shop.deliver()

    assert shop.states() == ["superseded", "delivered"]
    assert ended.version != first
    assert len(server.got) == 2


def test_what_no_longer_serves_is_not_told(shop):
    shop.script()
    first = shop.promote()
    shop.deliver()
    shop.promote()
    rollback(shop.contract.registry, "net")  # by somebody who cannot use the database

    ended = shop.deliver()

    assert (ended.state, ended.sentence) == ("superseded", f"version {first} serves by now")
    assert len(shop.notes()) == 1


def test_a_registry_that_cannot_be_read_is_waited_for(shop):
    shop.script(give_up_seconds=0.2)
    shop.promote()
    VersionLayout(shop.contract.registry, "net").pointer.write_text("{", encoding="utf-8")

    ended = shop.deliver()

    assert ended.state == "failed"
    assert shop.notes() == []


def test_a_hook_waits_until_the_version_is_published(shop, faulty):
    shop.script()
    url = "faulty://bucket/models"
    shop.contract = dataclasses.replace(shop.contract, registry_url=url)
    version = shop.promote()
    publishing = threading.Timer(0.2, publish, (shop.contract.registry, "net", url))
    publishing.start()

    ended = shop.deliver()
    publishing.join()

    assert ended.state == "delivered"
    assert ended.attempts > 1
    [told] = shop.notes()
    assert (told["CALIDRIFT_VERSION"], told["CALIDRIFT_REGISTRY_URL"]) == (version, url)


def test_a_version_that_is_never_published_is_given_up_and_said(shop, faulty):
    shop.script(give_up_seconds=0.2)
    shop.contract = dataclasses.replace(shop.contract, registry_url="faulty://bucket/models")
    shop.promote()

    ended = shop.deliver()

    assert ended.state == "failed"
    assert "what serves is not yet published at faulty://bucket/models" in ended.sentence
    assert shop.notes() == []


def test_a_move_of_somebody_else_is_noticed_once(shop):
    shop.script()
    first = shop.promote()
    record(shop, first)
    second = shop.promote()
    record(shop, second)
    shop.deliver()
    assert not notice_move(shop.store, shop.contract, settled_seconds=0.0)
    rollback(shop.contract.registry, "net", first)

    assert not notice_move(shop.store, shop.contract, settled_seconds=600.0), "not yet"
    assert notice_move(shop.store, shop.contract, settled_seconds=0.0)
    assert not notice_move(shop.store, shop.contract, settled_seconds=0.0)

    shop.deliver()
    told = shop.notes()[-1]
    assert (told["CALIDRIFT_ACTION"], told["CALIDRIFT_VERSION"]) == ("rollback", first)
    assert told["CALIDRIFT_PREVIOUS"] == second
    record(shop, first, "rolled_back")  # whoever moved it comes late
    shop.keep(first, DeployAction.ROLLBACK, second)
    assert len(shop.rows()) == 3


def test_an_old_registry_with_a_new_database_tells_nothing(shop):
    shop.promote()
    shop.script()

    assert not notice_move(shop.store, shop.contract, settled_seconds=0.0)


def test_a_person_may_have_the_last_move_told_again(shop):
    shop.script("sys.exit(1)")
    with pytest.raises(NoDataError, match="no move of net was kept yet"):
        enqueue_again(shop.store, shop.contract)
    version = shop.promote()
    with pytest.raises(RefusedError, match=f"version {version} of net is being told already"):
        enqueue_again(shop.store, shop.contract)
    shop.deliver()
    shop.script()

    enqueue_again(shop.store, shop.contract)
    shop.deliver()

    assert shop.states() == ["failed", "delivered"]
    one, two = (told["CALIDRIFT_IDEMPOTENCY_KEY"] for told in shop.notes())
    assert one != two
    assert shop.store.deployments.outcomes() == {("net", "failed"): 1, ("net", "delivered"): 1}


def test_nothing_is_told_again_of_what_no_longer_serves(shop):
    shop.script()
    first, second = shop.promote(), shop.promote()
    shop.deliver()
    rollback(shop.contract.registry, "net")

    with pytest.raises(RefusedError, match=f"version {first} of net serves by now, and not"):
        enqueue_again(shop.store, shop.contract)
    assert shop.rows()[-1].version == second
