"""What the caller's batches mean: inputs of the model, and how many units they hold."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch

from calidrift_agent._points import ForwardSignature, Frame, batch_rows
from calidrift_agent.errors import ConfigurationError

_ALLOWED = "a tensor, a tuple of positional inputs or a mapping of keyword inputs"


@final
@dataclass(frozen=True, slots=True)
class Batch:
    """One call of the model.

    Attributes:
        number: Counted from 1.
        args: Positional inputs.
        kwargs: Keyword inputs.
        rows: Units in the batch: rows of its first tensor that are not padding altogether.
        frame: Where rows and padded positions are.
    """

    number: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    rows: int
    frame: Frame


def read_batches(
    batches: Iterable[Any], signature: ForwardSignature | None = None
) -> Iterator[Batch]:
    """Yield the batches, each one checked when its turn comes.

    Args:
        batches: What the caller gave.
        signature: Of the model's forward, to find an attention mask; None for none.

    Raises:
        ConfigurationError: `batches` is not an iterable of batches, or a batch has another type,
            no tensor, or no rows.
    """
    if isinstance(batches, torch.Tensor | Mapping | str | bytes) or not isinstance(
        batches, Iterable
    ):
        raise ConfigurationError(
            f"batches is a {type(batches).__name__}, but must be an iterable of batches; "
            "put a single batch into a list"
        )
    for number, batch in enumerate(batches, start=1):
        args, kwargs = _inputs(number, batch)
        rows = batch_rows(args, kwargs)
        if rows is None:
            raise ConfigurationError(
                f"batch {number} holds no tensor with a dimension, so its units cannot be counted; "
                f"yield {_ALLOWED}, with the batch as first dimension"
            )
        frame = Frame.of(args, kwargs, rows, signature or ForwardSignature())
        units = int(frame.real.sum())
        if units == 0:
            raise ConfigurationError(
                f"batch {number} has no rows{' that are not padding' if rows else ''}; yield "
                "batches with at least one unit"
            )
        yield Batch(number=number, args=args, kwargs=kwargs, rows=units, frame=frame)


def _inputs(number: int, batch: object) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    if isinstance(batch, torch.Tensor):
        return (batch,), {}
    if isinstance(batch, tuple):
        return batch, {}
    if isinstance(batch, Mapping):
        if all(isinstance(name, str) for name in batch):
            return (), dict(batch)
        raise ConfigurationError(
            f"batch {number} is a mapping with keys that are not text; "
            "name each input as the model's forward does"
        )
    hint = "; a DataLoader's list often ends with labels" if isinstance(batch, list) else ""
    raise ConfigurationError(
        f"batch {number} is a {type(batch).__name__}, but must be {_ALLOWED}{hint}; "
        "yield only what the model takes"
    )
