import asyncio
import contextvars
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from calidrift_agent._observe import RequestContext, current_context, request_context
from calidrift_agent._observe._context import listen, unlisten
from calidrift_agent.errors import ConfigurationError


def test_nothing_is_said_by_default():
    assert current_context() == RequestContext(None, None)


def test_inner_contexts_keep_what_they_do_not_say():
    with request_context(segment="a", session="s"):
        with request_context(segment="b"):
            assert current_context() == RequestContext("b", "s")
        assert current_context() == RequestContext("a", "s")
    assert current_context() == RequestContext()


def test_what_makes_a_unit():
    assert RequestContext().unit is None
    assert RequestContext(segment="a").unit is None
    assert RequestContext(key="k").unit == ("key", "k")
    assert RequestContext(key="k", session="s").unit == ("session", "s")
    assert RequestContext(session="x").unit != RequestContext(key="x").unit


def test_it_ends_with_an_exception():
    with pytest.raises(KeyError), request_context(segment="a"):
        raise KeyError
    assert current_context() == RequestContext()


def test_threads_and_tasks_have_their_own():
    seen = []
    with request_context(segment="main"):
        thread = threading.Thread(target=lambda: seen.append(current_context().segment))
        thread.start()
        thread.join()

    async def task(name):
        with request_context(segment=name):
            await asyncio.sleep(0)
            return current_context().segment

    async def both():
        return await asyncio.gather(task("one"), task("two"))

    assert seen == [None]
    assert asyncio.run(both()) == ["one", "two"]


@pytest.mark.parametrize("key", [None, "k"])
def test_a_block_may_be_left_in_another_context_than_it_was_entered_in(key):
    heard = []

    class Listener:
        def opened(self, key, ticket):
            heard.append(key)
            return True

        def closed(self, ticket):
            heard.append("closed")

    def steps():
        with request_context(segment="night", key=key):
            yield current_context().segment

    listener = Listener()
    listen(listener)
    try:
        generator = steps()
        assert contextvars.copy_context().run(next, generator) == "night"
        with pytest.raises(StopIteration):
            contextvars.copy_context().run(next, generator)
    finally:
        unlisten(listener)
    assert heard == ([] if key is None else ["k", "closed"])
    assert current_context() == RequestContext()


def test_an_asynchronous_generator_may_be_dropped_half_way():
    problems = []

    async def steps():
        with request_context(segment="night", key="k"):
            yield 1
            yield 2

    async def consume():
        asyncio.get_running_loop().set_exception_handler(lambda _, told: problems.append(told))
        async for _ in steps():
            break
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(consume())
    assert problems == []
    assert current_context() == RequestContext()


@pytest.mark.parametrize("given", [{"segment": 5}, {"session": b"x"}, {"key": 7}])
def test_only_text(given):
    with (
        pytest.raises(ConfigurationError, match=r"must be text; pass str\("),
        request_context(**given),
    ):
        pass


def carried(how):
    """What is known about the request where a call of it runs."""

    async def inside():
        loop = asyncio.get_running_loop()
        with request_context(segment="a", session="s", key="k"):
            if how == "to_thread":
                return await asyncio.to_thread(current_context)
            if how == "task":
                return await asyncio.create_task(_now())
            with ThreadPoolExecutor(1) as pool:
                if how == "executor":
                    return await loop.run_in_executor(pool, current_context)
                context = contextvars.copy_context()
                return await loop.run_in_executor(pool, context.run, current_context)

    async def _now():
        await asyncio.sleep(0)
        return current_context()

    return asyncio.run(inside())


@pytest.mark.parametrize("how", ["to_thread", "task", "copied executor"])
def test_it_goes_where_context_variables_go(how):
    assert carried(how) == RequestContext("a", "s", "k")


def test_an_executor_must_be_given_a_copy():
    assert carried("executor") == RequestContext()


def test_a_task_keeps_it_when_the_block_is_left():
    async def main():
        go_on = asyncio.Event()

        async def later():
            await go_on.wait()
            return current_context().key

        with request_context(key="k"):
            task = asyncio.create_task(later())
        go_on.set()
        return await task, current_context().key

    assert asyncio.run(main()) == ("k", None)


class Listener:
    def __init__(self, wanted=True):
        self.wanted = wanted
        self.heard = []

    def opened(self, key, ticket):
        self.heard.append(("opened", key))
        self.ticket = ticket
        return self.wanted

    def closed(self, ticket):
        assert ticket is self.ticket
        self.heard.append("closed")


def test_watches_hear_of_keys_and_only_of_keys():
    one, other = Listener(), Listener(wanted=False)
    listen(one)
    listen(other)
    try:
        with request_context(segment="a"), request_context(key="k"), request_context(session="s"):
            pass
        with pytest.raises(KeyError), request_context(key="again"):
            raise KeyError
    finally:
        unlisten(one)
        unlisten(one)
        unlisten(other)
    with request_context(key="late"):
        pass
    assert one.heard == [("opened", "k"), "closed", ("opened", "again"), "closed"]
    assert other.heard == [("opened", "k"), ("opened", "again")]


def test_a_watch_that_is_gone_is_not_told():
    listener = Listener()
    heard = listener.heard
    listen(listener)
    del listener
    gc.collect()
    with request_context(key="k"):
        pass
    assert heard == []
