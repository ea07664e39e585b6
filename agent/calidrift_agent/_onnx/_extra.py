"""The packages of the extra `[onnx]`, imported only where an ONNX model is really met."""

from importlib import import_module
from types import ModuleType
from typing import Any, Final, Protocol

from calidrift_agent.errors import ConfigurationError

_ADVICE: Final = 'install both with: pip install "calidrift[onnx]"'


class Session(Protocol):
    """What an `onnxruntime.InferenceSession` is to somebody who must not import it."""

    def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
        """Run the model."""


def onnx_package() -> ModuleType:
    """Return the package that reads and writes ONNX models.

    Raises:
        ConfigurationError: It is not installed.
    """
    return _load("onnx")


def runtime_package() -> ModuleType:
    """Return ONNX Runtime.

    Raises:
        ConfigurationError: It is not installed.
    """
    return _load("onnxruntime")


def is_session(model: Any) -> bool:
    """Whether `model` is an `onnxruntime.InferenceSession`; imports nothing.

    Example:
        >>> is_session(object())
        False
    """
    return any(
        base.__name__ == "InferenceSession" and base.__module__.partition(".")[0] == "onnxruntime"
        for base in type(model).__mro__
    ) and hasattr(model, "__dict__")


def _load(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"ONNX models need the packages onnx and onnxruntime, and {name} cannot be imported "
            f"({error}); {_ADVICE}"
        ) from error
