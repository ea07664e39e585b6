"""Calls the user's code; imported in the child process only."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.contract._protocols import Evaluation, Split
from calidrift_analyzer.errors import CalidriftError, ContractError

__all__ = ["UserCode"]


@final
class UserCode:
    """The four callables of a model contract, with every misbehaviour as one sentence.

    Args:
        contract: Where they are; its `root` becomes the first entry of the module search path.

    Raises:
        ContractError: A module cannot be imported, or has no such callable.
    """

    def __init__(self, contract: ModelContract) -> None:
        root = str(contract.root)
        if root not in sys.path:
            sys.path.insert(0, root)
        self._weights = contract.weights
        self._factory = _resolve("factory", contract.factory)
        self._example_inputs = _resolve("example_inputs", contract.example_inputs)
        self._calibration = _resolve("calibration", contract.calibration)
        self._evaluate = _resolve("evaluate", contract.evaluate)

    def model(self) -> nn.Module:
        """Build the FP32 model, load its weights, put it into eval mode.

        Raises:
            ContractError: The factory raises or gives something else, or the weights do not fit.
        """
        with self._factory.naming():
            model = self._factory.call()
        if not isinstance(model, nn.Module):
            raise ContractError(
                f"{self._factory} returned {_a(model)}, but must return a torch.nn.Module"
            )
        if self._weights is not None:
            _load_weights(model, self._weights)
        return model.eval().requires_grad_(False)

    def example_inputs(self) -> tuple[Any, ...]:
        """Give the example inputs.

        Raises:
            ContractError: The function raises or gives something else.
        """
        with self._example_inputs.naming():
            inputs = self._example_inputs.call()
        if isinstance(inputs, torch.Tensor):
            inputs = (inputs,)
        if not isinstance(inputs, tuple) or not any(
            isinstance(one, torch.Tensor) for one in inputs
        ):
            raise ContractError(
                f"{self._example_inputs} returned {_a(inputs)}, but must return a tuple of the "
                "model's positional inputs with at least one tensor"
            )
        return inputs

    def calibration(self) -> Iterator[Any]:
        """Yield the calibration batches.

        Raises:
            ContractError: The function or its iterator raises, or there is no iterator.
        """
        with self._calibration.naming():
            batches = self._calibration.call()
            if isinstance(batches, torch.Tensor | str | bytes):
                raise TypeError(f"it returned {_a(batches)} instead of an iterable of batches")
            iterator = iter(batches)
        while True:
            with self._calibration.naming():
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
            yield batch

    def evaluate(self, model: nn.Module, split: Split) -> Evaluation:
        """Measure a model on one split.

        Raises:
            ContractError: The function raises or gives something else.
        """
        with self._evaluate.naming(f" on the split {split}"), torch.no_grad():
            result = self._evaluate.call(model, str(split))
        if not isinstance(result, Evaluation):
            raise ContractError(
                f"{self._evaluate} returned {_a(result)} on the split {split}, but must return "
                "a calidrift_analyzer.recalibrate.Evaluation"
            )
        return result


@final
class _Callable:
    """One callable of the contract, with the name that the user gave it."""

    def __init__(self, key: str, reference: str, call: Callable[..., Any]) -> None:
        self._label = f"{key} ({reference})"
        self.call = call

    def __str__(self) -> str:
        return self._label

    @contextmanager
    def naming(self, where: str = "") -> Iterator[None]:
        """Turn whatever the user's code raises into one sentence that names it."""
        try:
            yield
        except CalidriftError:
            raise
        except (Exception, SystemExit) as error:
            raise ContractError(
                f"{self} raised {type(error).__name__}{where}: {_line(error)}"
            ) from error


def _resolve(key: str, reference: str) -> _Callable:
    module_name, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ContractError(
            f"{key} = {reference!r}: the module {module_name} cannot be imported "
            f"({type(error).__name__}: {_line(error)}); it is looked for beside calidrift.toml and "
            "among installed packages"
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise ContractError(
                f"{key} = {reference!r}: {module_name} has no {path}; correct the name after ':'"
            )
        found = getattr(found, part)
    if not callable(found):
        raise ContractError(f"{key} = {reference!r} is {_a(found)}, but must be callable")
    return _Callable(key, reference, found)


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(weights)
    except Exception as error:
        raise ContractError(
            f"weights {path} cannot be loaded into {type(model).__name__} "
            f"({type(error).__name__}: {_line(error)}); give a safetensors file or a state dict "
            "of this model"
        ) from error


def _a(value: object) -> str:
    return f"a {type(value).__name__}"


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "no message"
