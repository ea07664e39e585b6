"""Since when the counts of each model run, as OpenTelemetry wants to know of cumulative sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._state import ModelState


@final
class Beginnings:
    """Remembers the start time of each model's counts, and notices when they begin anew.

    Counts run from the start of the first process of a model, over the death of any of them and
    of the sidecar: dead processes stay in the sum. They begin anew only where files were lost
    (somebody emptied the directory); a receiver that is not told would take the new sum for a
    part of the old one.

    Args:
        own_ns: When the sidecar started: the start of what it counts about itself.
    """

    def __init__(self, own_ns: int) -> None:
        self._own_ns = own_ns
        self._known: dict[str, tuple[int, NDArray[np.int64]]] = {}
        self._last_ns = own_ns

    def update(self, models: tuple[ModelState, ...], at_ns: int) -> None:
        """Take note of a reading; call it before `of`.

        Args:
            models: All models of the reading. A model that is missing was not readable just now
                and keeps its start.
            at_ns: When it was taken.
        """
        for model in models:
            name, requests = model.meta.model, model.total.requests
            known = self._known.get(name)
            if known is None:
                began = min(model.total.start_ns, at_ns)
            elif bool((requests < known[1]).any()):
                began = max(model.total.start_ns, self._last_ns)
            else:
                began = known[0]
            self._known[name] = (began, requests)
        self._last_ns = at_ns

    def of(self, labels: Mapping[str, str]) -> int:
        """Start time of a series, UTC nanoseconds."""
        known = self._known.get(labels.get("model", ""))
        return self._own_ns if known is None else known[0]
