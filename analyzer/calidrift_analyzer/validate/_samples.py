"""Which samples `evaluate` ran: digests of the model's inputs, row by row."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, final

import torch
from torch.utils._pytree import tree_leaves

from calidrift_agent._points import batch_rows
from calidrift_analyzer.contract import Split
from calidrift_analyzer.errors import ContractError

__all__ = ["SampleLog", "require_disjoint"]

_DIGEST_BYTES = 16


@final
class SampleLog:
    """Digests of everything that a model was called with.

    Rows and not batches, so that the same samples in batches of another size are still the same.

    Cost: 1.5 ns per byte of input (blake2b).
    """

    def __init__(self) -> None:
        self._digests: list[bytes] = []
        self._readable = True

    @property
    def digests(self) -> tuple[bytes, ...] | None:
        """One digest per row, in the order of the calls; `None` where inputs could not be read."""
        return tuple(self._digests) if self._readable else None

    def add(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Take in one call; never raises: inputs that have no plain bytes end the log."""
        rows = batch_rows(args, kwargs)
        if not self._readable or rows == 0:
            return
        rows = 1 if rows is None else rows
        try:
            hashes = [hashlib.blake2b(digest_size=_DIGEST_BYTES) for _ in range(rows)]
            for leaf in tree_leaves((tuple(args), dict(kwargs))):
                for one, part in zip(hashes, _parts(leaf, rows), strict=True):
                    one.update(part)
        except (RuntimeError, TypeError, NotImplementedError):  # sparse, nested, fake tensors
            self._readable = False
            return
        self._digests.extend(one.digest() for one in hashes)


def require_disjoint(samples: Mapping[Split, Sequence[bytes] | None]) -> None:
    """Check that no two splits are made of the same samples.

    Equal row by row is refused, and so is a split of which every row is in another one. The
    second only where no row repeats in either: small sets of possible inputs (four binary
    features, say) make splits alike that were drawn apart. Scores are not looked at: two splits
    that a model answers without a mistake have the same scores.

    Args:
        samples: Digests of the rows of each split; `None` where they are not known.

    Raises:
        ContractError: Two splits have the same samples.
    """
    known = [(split, tuple(rows)) for split, rows in samples.items() if rows]
    for (one, rows), (other, others) in combinations(known, 2):
        small, large = sorted((rows, others), key=len)
        distinct, among = set(small), set(large)
        contained = distinct <= among and len(distinct) == len(small) and len(among) == len(large)
        if rows == others or contained:
            smaller, larger = (one, other) if len(rows) <= len(others) else (other, one)
            raise ContractError(
                f"evaluate ran the same samples on two splits: all {len(small):,} of the split "
                f"{smaller} are in the split {larger}; a candidate must not be judged on the "
                "samples that chose it, so evaluate must run other samples for each value of its "
                "`split` argument"
            )


def _parts(leaf: object, rows: int) -> list[bytes]:
    """What a leaf of the inputs adds to each row's digest."""
    if leaf is None or isinstance(leaf, bool | int | float | str | bytes):
        return [repr(leaf).encode()] * rows
    if not isinstance(leaf, torch.Tensor):
        raise TypeError(type(leaf).__name__)
    head = f"{leaf.dtype}{tuple(leaf.shape[1:])}".encode()
    values = leaf.detach().cpu().contiguous()
    if leaf.dim() == 0 or leaf.size(0) != rows:  # belongs to all rows together
        return [head + _bytes(values)] * rows
    return [head + _bytes(row) for row in values]


def _bytes(values: torch.Tensor) -> bytes:
    return values.reshape(-1).view(torch.uint8).numpy().tobytes()
