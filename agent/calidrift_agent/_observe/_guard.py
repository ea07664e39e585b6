"""A run of a module that may neither draw random numbers nor write to what others can see."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, final

import torch
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

from calidrift_agent._observe._side_effects import draws_random_numbers, written
from calidrift_agent.errors import CalidriftError


class SideEffectError(CalidriftError, RuntimeError):
    """A module was about to change the host's state; it did not come to that."""


@final
class SideEffectGuard(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses operations with effects beyond their result, before they run.

    For one thread and one block. Random numbers of torch come from generators of the whole
    process, and giving them back afterwards would take away what other threads drew meanwhile: so
    none may be drawn. Generators of Python and numpy are not its business: see `ChanceGuard`.

    Args:
        protected: Tensors (parameters, buffers) whose memory must not be written to.

    Attributes:
        refused: What was refused last, also where the module itself caught the error.

    Cost: 3 us per operation.

    Example:
        >>> weight = torch.ones(2)
        >>> with SideEffectGuard([weight]):
        ...     kept = weight * 2
        ...     weight.add_(1.0)
        Traceback (most recent call last):
        ...
        calidrift_agent._observe._guard.SideEffectError: it writes to its own state (aten.add_...
    """

    def __init__(self, protected: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memory = frozenset(chain.from_iterable(map(_memory, protected)))
        self.refused: str | None = None

    def __enter__(self) -> "SideEffectGuard":
        # Not the base's: it also sets flags of the whole process, and with them keeps Dynamo from
        # compiling what another thread calls at this moment.
        torch._C._push_on_torch_dispatch_stack(self)
        return self

    def __exit__(self, *_: object) -> None:
        torch._C._pop_torch_dispatch_stack(None)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Call the dispatch below as it is; the base would import Dynamo to step around it."""
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation, or refuse it.

        Raises:
            SideEffectError: It has effects beyond its result.
        """
        kwargs = kwargs or {}
        if draws_random_numbers(func, args, kwargs):
            raise self._refusal(f"it draws random numbers ({func})")
        for value in written(func, args, kwargs):
            # One tensor, or the list of an operation on many tensors at once.
            tensors = [one for one in tree_leaves(value) if isinstance(one, torch.Tensor)]
            if not self._memory.isdisjoint(chain.from_iterable(map(_memory, tensors))):
                raise self._refusal(f"it writes to its own state ({func})")
        return func(*args, **kwargs)

    def _refusal(self, reason: str) -> SideEffectError:
        self.refused = reason
        return SideEffectError(reason)


def _memory(tensor: torch.Tensor) -> Iterator[int]:
    """Yield the addresses of a tensor's memory; of one made of others, those of its parts."""
    if is_traceable_wrapper_subclass(tensor):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _memory(getattr(tensor, name))
    elif tensor.layout is torch.strided and not tensor.is_meta:
        address = tensor.untyped_storage().data_ptr()
        if address:
            yield address
