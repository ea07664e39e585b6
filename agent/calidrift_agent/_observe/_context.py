"""What the host may say about a request: its segment, its session and its key."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any, Final, Protocol, final
from weakref import ref

from calidrift_agent.errors import ConfigurationError


@final
@dataclass(frozen=True, slots=True)
class RequestContext:
    """Segment, session and key of the requests made in a context; None where nothing was said."""

    segment: str | None = None
    session: str | None = None
    key: str | None = None

    @property
    def unit(self) -> tuple[str, str] | None:
        """What all calls of one unit of inference share; None where each call is its own."""
        if self.session is not None:
            return ("session", self.session)
        return None if self.key is None else ("key", self.key)


class KeyListener(Protocol):
    """A watch that wants to know which keyed requests are running."""

    def opened(self, key: str, ticket: object) -> bool:
        """A block with a key was entered; whether this watch observes its calls."""

    def closed(self, ticket: object) -> None:
        """A block that this watch observes was left."""


@final
class _Block:
    """An open block with a key."""

    __slots__ = ("key", "outer", "told")

    def __init__(self, key: str, outer: "_Block | None") -> None:
        self.key = key
        self.outer = outer
        self.told: list[KeyListener] = []


_NOTHING: Final = RequestContext()
_current: ContextVar[RequestContext] = ContextVar("calidrift_request", default=_NOTHING)
_innermost: ContextVar[_Block | None] = ContextVar("calidrift_keyed_block", default=None)
_blocks: dict[int, _Block] = {}
_listeners: dict[int, ref[KeyListener]] = {}


@contextmanager
def request_context(
    *, segment: str | None = None, session: str | None = None, key: str | None = None
) -> Iterator[None]:
    """Say what the requests inside a `with` block belong to.

    Follows context variables: into asyncio tasks that are started in the block, into
    `asyncio.to_thread` and into thread pools of web frameworks (anyio). A plain thread and
    `loop.run_in_executor` start with an empty context; carry it there by hand::

        context = contextvars.copy_context()
        loop.run_in_executor(pool, context.run, model, images)
        threading.Thread(target=context.run, args=(model, images))

    (one copy per call that runs at the same time). An inner context keeps what the outer one said
    about anything that it does not say itself.

    A block inside a generator holds for the context in which the generator was when it entered the
    block, and frameworks may run each step of a plain generator in another copy of the context: so
    do FastAPI with a dependency that is a plain `def` with a `yield`, and Starlette with the later
    steps of a streamed plain generator. Nothing is raised there, but what was said does not reach
    the endpoint, or the later steps. Make the dependency an `async def`, or open the block in a
    middleware; inside a streamed generator, open it around each call of the model. After an
    asynchronous generator that is dropped half-way, its consumer's context keeps what it said:
    close it with `contextlib.aclosing`.

    Args:
        segment: A group of requests that is reported on its own ("night", "tenant-a"). Keep
            these few: only the first 64 names of a process are kept apart.
        session: Requests of one session are one unit of inference together. Never exported, and
            never written anywhere but as a digest.
        key: Identity of the request, e.g. its trace id. Whether a call is observed is then not
            drawn, but follows from a digest of the key and the sampling ratio: a retry, or the
            same request on a replica with the same ratio, is observed or not alike, and what is
            observed at a lower ratio is a part of what is observed at a higher one. Calls with
            the same key are one unit of inference together, unless there is a session. Never
            exported, never written. A task that runs on after the block was left still has the
            key; until then it is certain to be observed, from then on it only may be.

    Raises:
        ConfigurationError: A value is not text.

    Cost: 2 us, with a key 2 us more for each watch; calls of other requests pay 1 us more while
    a block is open whose key was chosen.

    Example:
        >>> with request_context(segment="night"), request_context(session="s1"):
        ...     current_context()
        RequestContext(segment='night', session='s1', key=None)
    """
    for name, value in (("segment", segment), ("session", session), ("key", key)):
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(
                f"{name} is {value!r} of type {type(value).__name__}, but must be text; "
                f"pass str({name})"
            )
    outer = _current.get()
    token = _current.set(
        RequestContext(
            outer.segment if segment is None else segment,
            outer.session if session is None else session,
            outer.key if key is None else key,
        )
    )
    if key is None:
        try:
            yield
        finally:
            _reset(_current, token)
        return
    block = _Block(key, _innermost.get())
    inner = _innermost.set(block)
    _open(block)
    try:
        yield
    finally:
        _close(block)
        _reset(_innermost, inner)
        _reset(_current, token)


def current_context() -> RequestContext:
    """Return what is known about the request of this thread or task."""
    return _current.get()


def listen(listener: KeyListener) -> None:
    """Tell a watch about keys from now on, as long as it lives; first of the blocks that are open.

    Safe to repeat: a watch that has forgotten the open blocks is told of them again.
    """
    mark = id(listener)
    # Weakly: a watch that is dropped without being closed must not keep its model.
    _listeners[mark] = ref(listener, lambda _: _listeners.pop(mark, None))
    # After that, so that each block is told of, here or where it is entered: twice does no harm.
    for block in tuple(_blocks.values()):
        _tell(listener, block)


def unlisten(listener: KeyListener) -> None:
    """Tell a watch about keys no longer; safe to repeat."""
    _listeners.pop(id(listener), None)


def keep_own_blocks() -> None:
    """Forget all open blocks but those of this thread: a forked child has no other thread.

    Before its watches begin anew.
    """
    _blocks.clear()
    block = _innermost.get()
    while block is not None:
        _blocks[id(block)] = block
        block = block.outer


def _reset(variable: ContextVar[Any], token: Token[Any]) -> None:
    """Give a variable its former value, unless the block is left in a context of another one."""
    with suppress(ValueError):  # that context has not got what was set
        variable.reset(token)


def _open(block: _Block) -> None:
    _blocks[id(block)] = block
    # The tuple is made in one step, so that other threads may come and go meanwhile.
    for listener in [known() for known in tuple(_listeners.values())]:
        if listener is not None:
            _tell(listener, block)


def _close(block: _Block) -> None:
    _blocks.pop(id(block), None)
    for listener in block.told:
        listener.closed(block)


def _tell(listener: KeyListener, block: _Block) -> None:
    """Tell a watch of an open block, and remember to tell it of the end."""
    if not listener.opened(block.key, block):
        return
    block.told.append(listener)
    if id(block) not in _blocks:  # it was left meanwhile, maybe before the watch was remembered
        listener.closed(block)
