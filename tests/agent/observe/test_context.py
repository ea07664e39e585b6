import asyncio
import threading

import pytest

from calidrift_agent._observe import RequestContext, current_context, request_context
from calidrift_agent.errors import ConfigurationError


def test_nothing_is_said_by_default():
    assert current_context() == RequestContext(None, None)


def test_inner_contexts_keep_what_they_do_not_say():
    with request_context(segment="a", session="s"):
        with request_context(segment="b"):
            assert current_context() == RequestContext("b", "s")
        assert current_context() == RequestContext("a", "s")
    assert current_context() == RequestContext()


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


@pytest.mark.parametrize("given", [{"segment": 5}, {"session": b"x"}])
def test_only_text(given):
    with (
        pytest.raises(ConfigurationError, match=r"must be text; pass str\("),
        request_context(**given),
    ):
        pass
