"""A forked child counts for itself, into files of its own, from its first sample on."""

import json
import os
import threading

import pytest
import torch

from calidrift_agent import request_context
from calidrift_agent._observe import Gate, Sampler
from calidrift_agent._observe._sampling import LOOK
from calidrift_agent._state import StateDirectory, scan
from calidrift_agent._vocabulary import CountColumn, RequestColumn
from calidrift_agent._watch import WatchOptions, _living

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
    # The hazard that Python warns about is what is tested here.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def in_child(work):
    """Run `work` in a forked child and return what it returns."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            os.write(writing, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0
    return json.loads(text)


def gate_of(net):
    return net.__dict__["forward"]


def figures(watch):
    total = watch.snapshot()[1]
    return [
        *total.requests[: RequestColumn.OBSERVED + 1].tolist(),
        int(total.counts[0, CountColumn.ROWS]),
    ]


def test_the_child_starts_at_zero_and_opens_nothing_before_its_first_sample(
    net, x, watch_all, tmp_path
):
    watch = watch_all(net, state_dir=tmp_path, options=WatchOptions(budget=None))
    torch.set_num_threads(1)
    with torch.no_grad():
        for _ in range(3):
            net(x)

    def work():
        with torch.no_grad():
            before = [len(list(tmp_path.glob("*.state"))), threading.active_count()]
            net(x)
            result = [before, figures(watch), len(list(tmp_path.glob("*.state")))]
            watch.close()
        return result

    before, counted, files = in_child(work)
    assert before == [1, 1]
    assert counted == [1, 1, 1, 4]
    assert files == 2
    assert figures(watch) == [3, 3, 3, 12]
    watch.close()
    readers = scan(tmp_path)
    assert len({reader.meta.process for reader in readers}) == 2
    assert {reader.meta.pid for reader in readers} > {os.getpid()}
    for reader in readers:
        reader.close()


def test_the_child_knows_the_key_of_the_block_that_it_was_forked_in(net, x, watch_all):
    key = next(str(number) for number in range(100) if Sampler(0.2).selects(str(number)))
    watch = watch_all(net, sample_rate=0.2)
    torch.set_num_threads(1)

    def work():
        with torch.no_grad():
            for _ in range(30):
                net(x)
        return figures(watch)

    inside, leave = threading.Event(), threading.Event()

    def elsewhere():
        with request_context(key=key):
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    assert inside.wait(30)
    try:
        with request_context(key=key):
            assert in_child(work)[:3] == [30, 30, 30]
        # A block of another thread did not come along.
        assert in_child(lambda: any(one & LOOK for one in gate_of(net).decisions)) is False
    finally:
        leave.set()
        thread.join()


def test_a_child_that_is_forked_while_the_watch_begins_counts_for_itself(
    net, x, watch_all, tmp_path, monkeypatch
):
    """By another thread, at the worst moment: the model is watched, `watch` has not returned."""
    torch.set_num_threads(1)
    attach, found = Gate.attach, []

    def work():
        with torch.no_grad():
            for _ in range(3):
                net(x)
        (engine,) = [one for one in _living._living if one.books.meta.model == "begun"]
        engine.close()
        return len(list(tmp_path.glob("*.state")))

    def attached(gate):
        attach(gate)
        net(x)  # counted by the parent
        found.append(in_child(work))

    monkeypatch.setattr(Gate, "attach", attached)
    watch = watch_all(net, name="begun", state_dir=tmp_path, options=WatchOptions(budget=None))
    assert figures(watch)[0] == 1
    assert found == [2], "the child has a file of its own"
    watch.close()
    (model,) = StateDirectory(tmp_path).read()
    assert model.total.requests[RequestColumn.SEEN] == 4


def test_a_child_that_observes_nothing_leaves_nothing(net, x, watch_all, tmp_path):
    watch = watch_all(net, state_dir=tmp_path)
    with torch.no_grad():
        net(x)
    in_child(lambda: watch.close())
    assert len(list(tmp_path.glob("*.state"))) == 1


@pytest.mark.parametrize("lock", ["engine", "intake", "ledger", "arming"])
def test_a_lock_that_is_held_at_the_fork(net, x, watch_all, lock):
    from calidrift_agent._observe import _armed

    watch = watch_all(net)
    engine = watch._active.engine
    held = {
        "engine": engine._lock,
        "intake": engine.intake._lock,
        "ledger": engine._parts.ledger._lock,
        "arming": _armed._arming._lock,
    }[lock]
    taken, done = threading.Event(), threading.Event()

    def hold():
        with held:
            taken.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(10)

    def work():
        with torch.no_grad():
            net(x)
        return figures(watch)

    try:
        assert in_child(work) == [1, 1, 1, 4]
    finally:
        done.set()
        holder.join()


def test_a_fork_in_the_middle_of_an_observed_call(net, x, watch_all):
    inside, go_on = threading.Event(), threading.Event()
    original = net.act.forward

    def waiting(value):
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            assert go_on.wait(60)
        return original(value)

    net.act.forward = waiting
    watch = watch_all(net)

    def request():
        with torch.no_grad():
            net(x)

    worker = threading.Thread(target=request)
    worker.start()
    assert inside.wait(20)
    assert "forward" in net.fc.__dict__

    def work():
        clean = "forward" not in net.fc.__dict__
        with torch.no_grad():
            net(x)
        return [clean, "forward" not in net.fc.__dict__, figures(watch)]

    try:
        assert in_child(work) == [True, True, [1, 1, 1, 4]]
    finally:
        go_on.set()
        worker.join()


def test_children_decide_for_themselves(net, watch_all):
    watch = watch_all(net, sample_rate=0.5)

    def work():
        return list(watch._active.engine._parts.gate.decisions[:64])

    assert in_child(work) != in_child(work)


def test_the_state_directory_may_be_gone_in_the_child(net, x, watch_all, tmp_path):
    folder = tmp_path / "state"
    watch = watch_all(net, state_dir=folder)

    def work():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.write_text("in the way")
        with torch.no_grad():
            net(x)
        return [figures(watch), watch.report().state_file is None]

    assert in_child(work) == [[1, 1, 1, 4], True]
