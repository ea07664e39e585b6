"""What a class has as its forward: mostly a function, but it may be any descriptor or object."""

from types import FunctionType
from typing import Any, Final

_FORWARD: Final = "forward"
_NOT_OF_INSTANCES: Final = (staticmethod, classmethod)


def class_forward(owner: Any) -> Any:
    """Return what `owner.forward` is where its instance has none: a method, or what stands for it.

    Static and class methods, `functools.partial`, builtins and other callable objects take no
    first argument, or another one than the module: Python itself has to bind them.

    Args:
        owner: An object whose class has a forward.

    Raises:
        AttributeError: Its class has none.
        Exception: Whatever a descriptor of the host raises.

    Cost: 1 us.
    """
    kind = type(owner)
    found = _found(kind)
    if type(found) in _NOT_OF_INSTANCES or not hasattr(type(found), "__get__"):
        return kind.forward  # what torch.compile can follow as well
    return found.__get__(owner, kind)


def plain_forward(kind: type[Any]) -> FunctionType | None:
    """Return a class's forward where it is an ordinary function: called with the module first."""
    found = _found(kind)
    return found if type(found) is FunctionType else None


def hides_its_instance(kind: type[Any]) -> bool:
    """Whether a class's forward, such as a property, has precedence over one of an instance."""
    found = type(_found(kind))
    return hasattr(found, "__set__") or hasattr(found, "__delete__")


def copied_forward(owner: Any) -> Any:
    """Return what a copied object's `__dict__` gets where the original's holds one of ours.

    Nothing of use behind a property, which the copy may not be ready for yet.
    """
    return None if hides_its_instance(type(owner)) else class_forward(owner)


def _found(kind: type[Any]) -> Any:
    for base in kind.__mro__:
        if _FORWARD in base.__dict__:
            return base.__dict__[_FORWARD]
    return getattr(kind, _FORWARD)  # of a metaclass, or the error that says that there is none
