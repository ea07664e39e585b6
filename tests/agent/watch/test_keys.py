"""Keyed and sessioned requests of a watched model."""

import asyncio
import json
import threading

import pytest
import torch

from calidrift_agent import CaptureOptions, StateReader, request_context
from calidrift_agent._observe import Sampler
from calidrift_agent._vocabulary import RequestColumn
from calidrift_agent._watch import WatchOptions

QUIET = {"budget": None, "drain_seconds": 3600, "window_seconds": 86_400, "seed": 0}
KEYS = [f"trace-{number}" for number in range(300)]


def observed(watch):
    return int(watch.snapshot()[1].requests[RequestColumn.OBSERVED])


def chosen(ratio, salt=""):
    sampler = Sampler(ratio, salt=salt.encode())
    return [key for key in KEYS if sampler.selects(key)]


def test_exactly_the_selected_keys_are_observed_each_time(net, x, watch_all):
    watch = watch_all(net, sample_rate=0.2)
    expected = net(x)
    for _ in range(2):  # as on a retry
        before = observed(watch)
        for key in KEYS:
            with request_context(key=key):
                assert torch.equal(net(x), expected)
        assert observed(watch) - before == len(chosen(0.2))
    assert watch.snapshot()[1].requests[RequestColumn.SEEN] == 1 + 2 * len(KEYS)


def test_a_watch_that_begins_inside_an_open_block_knows_its_key(net, x, watch_all):
    selected = chosen(0.2)[0]
    passed_over = next(key for key in KEYS if key not in chosen(0.2))
    for key, share in ((selected, 1.0), (passed_over, 0.0)):
        with request_context(key=key):
            watch = watch_all(net, sample_rate=0.2)
            for _ in range(40):
                net(x)
            assert observed(watch) == 40 * share
        watch.close()


def test_the_salt_changes_which(net, x, watch_all):
    watch = watch_all(
        net, sample_rate=0.2, options=WatchOptions(**QUIET, key_salt="another service")
    )
    assert set(chosen(0.2)) != set(chosen(0.2, "another service"))
    for key in chosen(0.2, "another service"):
        with request_context(key=key):
            net(x)
    assert observed(watch) == len(chosen(0.2, "another service"))


def test_requests_without_a_key_are_drawn_meanwhile(net, x, watch_all):
    watch = watch_all(net, sample_rate=0.3)
    calls = 400

    def others():
        torch.set_num_threads(1)  # a setting of each thread
        for _ in range(calls):
            net(x)

    with request_context(key=chosen(0.3)[0]):
        thread = threading.Thread(target=others)
        thread.start()
        thread.join()
    assert abs(observed(watch) - 0.3 * calls) < 5 * (0.21 * calls) ** 0.5


def test_tasks_that_take_turns_in_one_thread(net, x, watch_all):
    watch = watch_all(net, sample_rate=0.2)

    async def serve(key):
        with request_context(key=key):
            await asyncio.sleep(0)
            net(x)
            await asyncio.sleep(0)
            await asyncio.to_thread(net, x)

    async def main():
        await asyncio.gather(*(serve(key) for key in KEYS[:60]))

    asyncio.run(main())
    selected = [key for key in KEYS[:60] if key in chosen(0.2)]
    assert observed(watch) == 2 * len(selected)


def test_after_close_keys_cost_nothing(net, watch_all):
    watch = watch_all(net)
    gate = net.__dict__["forward"]
    watch.close()
    with request_context(key="a"):
        assert not any(gate.decisions)


@pytest.mark.parametrize("name", ["session", "key"])
def test_calls_that_belong_together_are_one_unit(net, x, watch_all, bounded, name):
    watch = watch_all(net, profile=bounded(conv__input=99.0, fc__input=99.0))
    for value in ("a", "b", "a", "a"):
        with request_context(**{name: value}):
            net(x)
    net(x)
    total = watch.snapshot()[1]
    assert total.requests[RequestColumn.UNITS] == 3
    assert total.requests[RequestColumn.OBSERVED] == 5


def test_a_session_and_a_key_of_the_same_name_are_two_units(net, x, watch_all, bounded):
    watch = watch_all(net, profile=bounded(conv__input=99.0, fc__input=99.0))
    for context in ({"session": "a"}, {"key": "a"}, {"session": "a", "key": "b"}):
        with request_context(**context):
            net(x)
    assert watch.snapshot()[1].requests[RequestColumn.UNITS] == 2


def test_neither_session_nor_key_leaves_the_process(net, x, watch_all, bounded, tmp_path):
    profile = bounded(conv__input=99.0, fc__input=99.0)
    watch = watch_all(net, profile=profile, state_dir=tmp_path, capture=CaptureOptions())
    for _ in range(3):
        with request_context(segment="night", session="SECRETSESSION", key="SECRETKEY"):
            net(x)
    text = "".join(
        sample.name + json.dumps(sample.labels)
        for family in watch.collector().collect()
        for sample in family.samples
    )
    note = repr(watch) + repr(watch.report())
    watch.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 2
    (state,) = tmp_path.glob("*.state")
    with StateReader.open(state) as reader:
        assert [one.name for one in reader.total().segments] == ["night"]
    for found in (text.encode(), note.encode(), *(path.read_bytes() for path in files)):
        assert b"SECRET" not in found
    assert not [path for path in files if "SECRET" in str(path)]
