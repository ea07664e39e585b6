"""Reads recorded inputs as batches of the model; in the child process."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, final
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from calidrift_agent._capture import read_capture
from calidrift_agent._vocabulary import CaptureKind
from calidrift_analyzer.errors import CalidriftError, ContractError
from calidrift_analyzer.offline._sources import Source

__all__ = ["InputSpec", "Recording", "read_batches", "shapes_of"]

_POSITIONAL: Final = re.compile(r"(?:arg|arr_)(\d+)")
_CAPTURE: Final = "calidrift-capture"
_SEALED: Final = ".fernet"
_NAMED: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@final
@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a model takes, from its forward and its example inputs.

    Attributes:
        names: Names of the positional inputs.
        examples: One example per required input, in that order.
        keywords: Names of further inputs that it takes; any where it takes `**kwargs`.
    """

    names: tuple[str, ...]
    examples: tuple[Tensor, ...]
    keywords: frozenset[str] | None

    @classmethod
    def of(cls, model: nn.Module, examples: Sequence[Any]) -> Self:
        """Read the signature.

        Raises:
            ContractError: An example input is not a tensor: recorded inputs are tensors.
        """
        foreign = next((one for one in examples if not isinstance(one, Tensor)), None)
        if foreign is not None:
            raise ContractError(
                f"example_inputs gives a {type(foreign).__name__} among the inputs, but recorded "
                "inputs are tensors; wrap the model so that it takes tensors only"
            )
        parameters = list(inspect.signature(model.forward).parameters.values())
        names = [one.name for one in parameters if one.kind in _NAMED]
        names += [f"arg{place}" for place in range(len(names), len(examples))]
        takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
        other = {one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
        further = None if takes_all else frozenset({*names[len(examples) :], *other})
        return cls(tuple(names[: len(examples)]), tuple(examples), further)

    def name_of(self, given: str) -> str:
        """The model's name of an input that may be given by its place (`arg0`, `arr_0`)."""
        place = _POSITIONAL.fullmatch(given)
        if place is None or given in self.names or int(place[1]) >= len(self.names):
            return given
        return self.names[int(place[1])]

    def require_names(self, given: Sequence[str], source: Source) -> None:
        """Refuse a file that holds other inputs than the model takes.

        Raises:
            ContractError: One is missing, or is not the model's.
        """
        found = {self.name_of(name) for name in given}
        missing = [name for name in self.names if name not in found]
        allowed = found if self.keywords is None else {*self.names, *self.keywords}
        foreign = sorted(found - allowed)
        if missing or foreign:
            raise ContractError(
                f"{source.name} holds the inputs {', '.join(given) or '(none)'}, but the model "
                f"takes {', '.join(self.names)}; name each tensor as the model's forward does, or "
                "arg0, arg1, ... by its place"
            )

    def fitted(self, name: str, array: Any, rows: tuple[int, int], source: Source) -> Tensor:
        """Give rows of an input in the type that the model takes.

        Args:
            name: The model's name of the input.
            array: All rows of it: an array, a tensor or a slice of a file.
            rows: The first row, and the one behind the last.
            source: The file, for the message.

        Raises:
            ContractError: It has other dimensions, or whole numbers where the model takes
                fractions (or the other way round).
        """
        tensor = _tensor(array, *rows)
        if name not in self.names:
            return tensor
        example = self.examples[self.names.index(name)]
        if tensor.dim() != example.dim():
            short = tensor.dim() == example.dim() - 1
            raise ContractError(
                f"{source.name} holds {name} of shape {_shape(array)}, but the model takes "
                f"{example.dim()} dimensions like {tuple(example.shape)}, rows first"
                f"{'; a single row needs a first dimension of 1' if short else ''}"
            )
        if tensor.is_floating_point() != example.is_floating_point():
            raise ContractError(
                f"{source.name} holds {name} as {_type(tensor)}, but the model takes "
                f"{_type(example)}; record what the model gets, after all preprocessing"
            )
        return tensor.to(example.dtype)


@final
class Recording:
    """One file, of which the rows can be read in any portion; its values are not kept.

    Attributes:
        source: The file.
        rows: Rows in it.
        segment: The segment that was recorded with it.
        time_ns: When it was recorded, UTC nanoseconds: a capture's own time, else the time of the
            file's last change.
        selected: Whether it was kept because it left a range.
        is_capture: Whether it is a capture.

    Args:
        source: The file.
        spec: What the model takes.

    Raises:
        ContractError: It cannot be read, or its inputs are not the model's.
        CaptureError: It is a damaged capture.
    """

    def __init__(self, source: Source, spec: InputSpec) -> None:
        self.source = source
        self._spec = spec
        self._held: dict[str, Any] | None = None
        self.segment: str | None = None
        self.selected = self.is_capture = False
        arrays = self._load()
        spec.require_names(tuple(arrays), source)
        sizes = {name: (*_shape(array), 0)[0] for name, array in arrays.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise ContractError(
                f"{source.name} has different numbers of rows for its inputs, or none ({listed}); "
                "the first dimension of every input counts the rows"
            )
        self.rows = next(iter(sizes.values()))
        for name, array in arrays.items():
            spec.fitted(spec.name_of(name), array, (0, 1), source)

    def read(self, start: int, stop: int) -> dict[str, Tensor]:
        """Give rows of every input, as the model takes them; to be read from first to last."""
        if self._held is None:
            arrays = self._load()
            self._held = {self._spec.name_of(name): array for name, array in arrays.items()}
        found = {
            name: self._spec.fitted(name, array, (start, stop), self.source)
            for name, array in self._held.items()
        }
        if stop >= self.rows:
            self._held = None
        return found

    def _load(self) -> dict[str, Any]:
        """Open the file; gives what has a shape and can be sliced, by the names in the file."""
        path = self.source.path
        try:
            self.time_ns = path.stat().st_mtime_ns
            if path.name.endswith((".safetensors", _SEALED)):
                return self._load_safetensors()
            if path.suffix == ".npz":
                # numpy leaves a file open that it cannot read, so it is opened here.
                with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                    return dict(archive)
            array = np.lib.format.open_memmap(path, mode="r")  # refuses pickled objects
        except (OSError, ValueError, EOFError, BadZipFile, SafetensorError) as error:
            if isinstance(error, CalidriftError):
                raise
            line = next(iter(str(error).splitlines()), type(error).__name__)
            raise ContractError(
                f"{self.source.name} cannot be read ({line}); it is damaged, or not what its name "
                "says"
            ) from error
        if len(self._spec.names) != 1:
            raise ContractError(
                f"{self.source.name} holds one array, but the model takes "
                f"{', '.join(self._spec.names)}; put them into one .npz or .safetensors file under "
                "these names"
            )
        return {self._spec.names[0]: array}

    def _load_safetensors(self) -> dict[str, Any]:
        path = self.source.path
        if not path.name.endswith(_SEALED):
            file: Any = safe_open(path, framework="pt")
            if (file.metadata() or {}).get("format") != _CAPTURE:
                names: list[str] = file.keys()
                return {name: file.get_slice(name) for name in names}
        capture = read_capture(path)
        self.is_capture = True
        self.segment = capture.segment or None
        self.time_ns = capture.time_ns
        self.selected = capture.kind is CaptureKind.UNCOVERED
        return {
            name: _exact(array, name in capture.bfloat16) for name, array in capture.inputs.items()
        }


def _exact(array: np.ndarray[Any, Any], bfloat16: bool) -> Tensor:
    if bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def read_batches(
    recordings: Sequence[Recording], rows: int
) -> Iterator[tuple[dict[str, Tensor], list[tuple[Recording, int]]]]:
    """Yield batches of up to `rows` rows, and where each row comes from.

    Rows of different files share a batch where names, shapes and types are the same.
    """
    waiting: list[dict[str, Tensor]] = []
    labels: list[tuple[Recording, int]] = []
    for recording in recordings:
        start = 0
        while start < recording.rows:
            stop = min(recording.rows, start + rows - len(labels))
            piece = recording.read(start, stop)
            if waiting and _kind(waiting[0]) != _kind(piece):
                yield _joined(waiting), labels
                waiting, labels = [], []
            waiting.append(piece)
            labels += [(recording, row) for row in range(start, stop)]
            start = stop
            if len(labels) >= rows:
                yield _joined(waiting), labels
                waiting, labels = [], []
    if waiting:
        yield _joined(waiting), labels


def _kind(piece: Mapping[str, Tensor]) -> list[Any]:
    return [(name, tensor.dtype, tensor.shape[1:]) for name, tensor in piece.items()]


def _joined(pieces: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


def _shape(array: Any) -> tuple[int, ...]:
    return tuple(array.get_shape() if hasattr(array, "get_shape") else array.shape)


def _tensor(array: Any, start: int, stop: int) -> Tensor:
    part = array[start:stop]
    if isinstance(part, Tensor):
        return part
    try:
        return torch.from_numpy(np.array(part, part.dtype.newbyteorder("=")))
    except TypeError as error:
        raise ContractError(
            f"an input is of the type {part.dtype}, which is no number; record what the model gets"
        ) from error


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def shapes_of(batch: Mapping[str, Tensor]) -> str:
    """Say what a batch looks like."""
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in batch.items())
