"""Random numbers of Python and numpy: refused, in one thread, before they are drawn."""

import dis
import pickle
import random
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any, Final, final

import numpy as np

from calidrift_agent._observe._guard import SideEffectError

DRAWN: Final = "it draws random numbers"
"""Why a run is refused that drew some: they were put back, but the next would be drawn, too."""
Generators = Iterable[np.random.Generator | np.random.RandomState]
_CHANCE: Final = (np.random.Generator, np.random.RandomState, np.random.BitGenerator)
_BOUND: Final = (type(np.random.rand), type(np.random.default_rng(0).random))
"""Types of functions such as `numpy.random.rand`: methods of the generator of the process."""
_PLACES: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF"})
_ATTRIBUTES: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_DRAWS: Final = frozenset(
    name
    for kind in (np.random.Generator, np.random.RandomState)
    for name in dir(kind)
    if not name.startswith("_")
) - {"beta", "bit_generator", "bytes", "f", "gamma", "get_state", "power", "seed", "set_state"}
"""Methods that draw, without those that are usual names of weights."""


class ChanceError(SideEffectError):
    """A module was about to draw random numbers of Python or numpy, or drew some."""


@final
class ChanceGuard:
    """Refuses random numbers of Python and numpy in this thread, for one block.

    Calls of Python's generators are seen as such. Those of numpy's cannot be; so the guard looks
    for instructions that fetch a generator from a global, a closure, or through modules and
    attributes from there, and refuses these. What is drawn through another way (a parameter, a
    library's own attribute) is found by comparing the generators before and after, and put back:
    the generator of the process only where a function that ran could have drawn from it, since
    other threads draw from it, too.

    Args:
        generators: More generators that the block may draw from.

    Attributes:
        refused: What was refused last, also where the module itself caught the error.
        drew: Whether random numbers were drawn all the same, and put back.

    Cost: 1 us per function called, and 30 us.
    """

    def __init__(self, generators: Generators = ()) -> None:
        self._generators = tuple(generators)
        self.refused: str | None = None
        self.drew = False
        self._suspect = False
        self._before: list[Any] = []
        self._hooks: tuple[Any, Any] = (None, None)

    def __enter__(self) -> "ChanceGuard":
        self._before = self._states()
        self._hooks = sys.getprofile(), sys.gettrace()
        sys.setprofile(self._profile)
        sys.settrace(self._trace)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        profile, trace = self._hooks
        sys.settrace(trace)
        sys.setprofile(profile)
        self._put_back()

    def _states(self) -> list[Any]:
        return [np.random.get_state(), *map(_state, self._generators)]

    def _put_back(self) -> None:
        process, *own = self._before
        for generator, state in zip(self._generators, own, strict=True):
            if pickle.dumps(_state(generator)) != pickle.dumps(state):
                self.drew = True
                if isinstance(generator, np.random.RandomState):
                    generator.set_state(state)
                else:
                    generator.bit_generator.state = state
        if self._suspect and pickle.dumps(np.random.get_state()) != pickle.dumps(process):
            self.drew = True
            np.random.set_state(process)

    def _profile(self, _: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and isinstance(getattr(called, "__self__", None), random.Random):
            raise self._refusal(f"random.{called.__name__}")

    def _trace(self, frame: FrameType, _: str, __: Any) -> Any:
        code = frame.f_code
        loads, draws = _read(code)
        self._suspect = self._suspect or draws
        found = {
            offset: ".".join((name, *names))
            for offsets, name, names in loads
            if _is_chance(_look_up(frame, name), names)
            for offset in offsets
        }
        if not found:
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False

        def step(here: FrameType, event: str, _: Any) -> Any:
            if event == "opcode" and here.f_lasti in found:
                raise self._refusal(found[here.f_lasti])
            return step

        return step

    def _refusal(self, what: str) -> ChanceError:
        self.refused = f"{DRAWN} ({what})"
        return ChanceError(self.refused)


def _state(generator: np.random.Generator | np.random.RandomState) -> Any:
    if isinstance(generator, np.random.RandomState):
        return generator.get_state()
    return generator.bit_generator.state


@lru_cache(maxsize=4_096)
def _read(code: CodeType) -> tuple[tuple[tuple[tuple[int, ...], str, tuple[str, ...]], ...], bool]:
    """Return what a function fetches from beyond its own variables, and whether it may draw.

    Each fetch with the places of its instructions, the name, and the attributes looked up on it.
    """
    loads: list[tuple[tuple[int, ...], str, list[str]]] = []
    prefixes: list[int] = []
    chain: list[str] | None = None
    for step in dis.get_instructions(code):
        if step.opname == "EXTENDED_ARG":  # the trace stops at it, not at what it belongs to
            prefixes.append(step.offset)
            continue
        if step.opname in _PLACES:
            chain = []
            loads.append(((*prefixes, step.offset), str(step.argval), chain))
        elif step.opname in _ATTRIBUTES and chain is not None:
            chain.append(str(step.argval))
        else:
            chain = None
        prefixes = []
    fetched = tuple((offsets, name, tuple(names)) for offsets, name, names in loads)
    return fetched, not _DRAWS.isdisjoint(code.co_names)


def _look_up(frame: FrameType, name: str) -> object:
    if name in frame.f_code.co_freevars:
        return frame.f_locals.get(name)
    return frame.f_globals.get(name)


def _is_chance(value: object, names: tuple[str, ...]) -> bool:
    """Whether a generator of numpy stands at the end of a chain of attributes, or on its way."""
    try:
        return _ends_at_chance(value, names)
    except Exception:  # a proxy without what it stands for: whoever looks at it gets an error
        return False


def _ends_at_chance(value: object, names: tuple[str, ...]) -> bool:
    for name in names:
        if isinstance(value, _CHANCE):
            return True
        inside = getattr(value, "__dict__", None)
        if not isinstance(inside, Mapping) or name not in inside:
            # A class, say, or what an object computes: the way ends here.
            return False
        value = inside[name]
    if isinstance(value, ModuleType):
        return value is np.random
    if isinstance(value, _BOUND):
        return isinstance(getattr(value, "__self__", None), _CHANCE)
    return isinstance(value, _CHANCE)
