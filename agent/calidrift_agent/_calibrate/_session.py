"""Calibrating an ONNX Runtime session: every feed is replayed where points can be read."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, final

import torch

from calidrift_agent._calibrate._batches import Batch
from calidrift_agent._calibrate._record import RailRecorder, UnitRecorder
from calidrift_agent._onnx import (
    FeedReader,
    Network,
    Replica,
    draw_up,
    fingerprint_of_network,
    read_session,
    survey,
)
from calidrift_agent._profile import Fingerprint, PointProfile
from calidrift_agent.errors import AttachError, ConfigurationError


@final
class SessionCalibration:
    """One calibration of a session; the session itself is only looked at.

    Args:
        session: An `onnxruntime.InferenceSession`.

    Raises:
        AttachError: Its model cannot be read, or has nothing to observe.
    """

    def __init__(self, session: Any) -> None:
        self._network = Network(read_session(session))
        self._survey = survey(self._network)
        points = self._survey.points
        if not points:
            reasons = "; ".join(f"{name}: {why}" for name, why in self._survey.skipped.items())
            raise AttachError(
                "the session's model has no quantizer, convolution, matrix product or embedding "
                f"to observe{f' ({reasons})' if reasons else ''}; give the model of another part"
            )
        self._blueprint = draw_up(self._survey, [one.bound for one in points])
        self._replica = Replica(self._blueprint, whole=True)
        types = {one.name: one.type for one in session.get_inputs()}
        self._needed = frozenset(info.name for info in self._blueprint.inputs)
        self._reader = FeedReader(types, self._needed)
        self._units = UnitRecorder(len(points))
        self._quantized = [index for index, one in enumerate(points) if one.bound is not None]
        self._rails = RailRecorder([one.bound for one in points if one.bound is not None])

    def read(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches as keyword inputs.

        Raises:
            ConfigurationError: A batch is no mapping of input names to arrays of their types.
        """
        if isinstance(batches, Mapping) or not isinstance(batches, Iterable):
            raise ConfigurationError(
                f"batches is a {type(batches).__name__}, but must be an iterable of feeds; put a "
                "single one into a list"
            )
        for number, batch in enumerate(batches, start=1):
            read = None
            if isinstance(batch, Mapping):
                feeds = {name: _plain(value) for name, value in batch.items()}
                read = self._reader.inputs((None, feeds), {})
            if read is None:
                raise ConfigurationError(
                    f"batch {number} is a {type(batch).__name__} that session.run would not take: "
                    f"yield mappings of {', '.join(sorted(self._needed))} to arrays of the types "
                    "that the session asks for"
                )
            yield read[1]

    def step(self, batch: Batch) -> None:
        """Replay one batch and note what it shows.

        Raises:
            Exception: What ONNX Runtime raises for a feed that it does not take.
        """
        feeds = {name: value.numpy() for name, value in batch.kwargs.items()}
        seen = self._replica.run(feeds, batch.frame.rows)
        self._units.begin(batch.frame)
        for index, tap in enumerate(self._blueprint.ranges):
            self._units.observe(index, _tensor(seen[tap]))
        self._units.end()
        self._rails.begin(batch.frame)
        for index, point in enumerate(self._quantized):
            self._rails.observe(index, _tensor(seen[self._blueprint.clips[point]]))

    def points(self, rank: int) -> list[PointProfile]:
        """Return what was measured at each point."""
        rails = {point: self._rails.rates(index) for index, point in enumerate(self._quantized)}
        found = []
        for index, one in enumerate(self._survey.points):
            low, high = rails.get(index, (None, None))
            found.append(
                PointProfile(
                    name=one.point.name,
                    clip_bound=one.bound,
                    observed_bound=self._units.bound(index, rank),
                    sketch=self._units.sketch(index),
                    rail_low_rate=low,
                    rail_high_rate=high,
                    aliases=one.point.aliases,
                )
            )
        return found

    def fingerprint(self, data: str, preprocessing: str) -> Fingerprint:
        """Return the fingerprint of the model."""
        return fingerprint_of_network(self._network, data=data, preprocessing=preprocessing)


def _plain(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _tensor(value: Any) -> torch.Tensor:
    assert isinstance(value, torch.Tensor)  # a replica that hands out everything whole
    return value
