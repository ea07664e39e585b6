"""`CalibrationProfile`: the reference that production is compared with."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

from calidrift_agent._profile._codec import (
    ADVICE,
    FORMAT,
    canonical,
    decode_fingerprint,
    decode_point,
    decode_reference,
    encode_fingerprint,
    encode_point,
    encode_reference,
    parse,
)
from calidrift_agent._profile._combine import combine_fingerprints, combine_points, listing
from calidrift_agent._profile._files import read_text, replace_text
from calidrift_agent._profile._origin import CALIBRATED, ReferenceOrigin
from calidrift_agent._profile._records import Fingerprint, PointProfile
from calidrift_agent._profile._tensorrt import read_cache
from calidrift_agent._vocabulary import Instrument, Role
from calidrift_agent.errors import (
    AttachError,
    ConfigurationError,
    ProfileFormatError,
    ProfileMismatchError,
)

if TYPE_CHECKING:
    from torch.fx import GraphModule
    from torch.nn import Module


@final
@dataclass(frozen=True, slots=True)
class CalibrationProfile:
    """Bounds, reference sketches and fingerprints of a model's points.

    Attributes:
        points: Point name to what is known about it; read-only, in the order of the model.
        units: Reference units (rows of the calibration batches); 0 where there are only ranges.
        instrument: What the observations were measured on.
        fingerprint: What the profile was made from.
        created: When, UTC, ISO 8601.
        reference: Where the reference units come from.
    """

    points: Mapping[str, PointProfile]
    units: int
    instrument: Instrument
    fingerprint: Fingerprint
    created: str
    reference: ReferenceOrigin = CALIBRATED

    def __post_init__(self) -> None:
        for name, point in self.points.items():
            if name != point.name:
                raise ConfigurationError(
                    f"the point {point.name} is filed under {name}; file it under its own name"
                )
        if self.units < 0:
            raise ConfigurationError(
                f"a profile has {self.units} units, but a count is 0 or more; count the rows"
            )
        try:
            offset = datetime.fromisoformat(self.created).utcoffset()
        except ValueError:
            offset = None
        if offset is None:
            raise ConfigurationError(
                f"created is {self.created!r}, but must be an ISO 8601 time with its offset, "
                'e.g. "2030-01-31T12:00:00+00:00"'
            )
        object.__setattr__(self, "points", MappingProxyType(dict(self.points)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled; the text holds everything, exactly.
        return type(self).from_json, (self.to_json(),)

    @property
    def digest(self) -> str:
        """Hex sha256 of the content: equal for equal profiles, other for any other.

        Computed anew at each call: about 0.13 ms per point with a sketch of 215 cells.
        """
        return _digest(self._content())

    @property
    def unobserved(self) -> tuple[str, ...]:
        """Names of points without an observed bound: they never fired, or no unit was finite."""
        return tuple(name for name, point in self.points.items() if point.observed_bound is None)

    def find(self, name: str) -> PointProfile | None:
        """Return the point with this name or alias, or None."""
        if name in self.points:
            return self.points[name]
        return next((one for one in self.points.values() if name in one.aliases), None)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "CalibrationProfile":
        """Read a profile.

        Raises:
            ProfileError: The file cannot be read.
            ProfileFormatError: Damaged, cut off, not a profile, or of a newer version.
        """
        return cls._parse(read_text(Path(path)), str(path))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the profile; a reader or a crash sees the old or the new file, never a part.

        Raises:
            ProfileError: The file cannot be written; an older one is untouched.
        """
        replace_text(Path(path), self.to_json())

    def to_json(self) -> str:
        """Return the profile as text; `from_json` gives an equal profile, bit for bit."""
        content = self._content()
        return canonical({**content, "digest": _digest(content)}) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "CalibrationProfile":
        """Read a profile from text.

        Raises:
            ProfileFormatError: Damaged, cut off, not a profile, or of a newer version.
        """
        return cls._parse(text, "the profile text")

    @classmethod
    def from_pt2e(cls, graph_module: "GraphModule") -> "CalibrationProfile":
        """Read the ranges of a converted PT2E graph: clip bounds only, no observations.

        Clipping can be reported with it. Coverage needs observations: merge it with a profile
        that `calibrate` made, or calibrate the graph itself.

        Args:
            graph_module: What `convert_pt2e` returned, or ``torch.export.load(path).module()``.

        Raises:
            AttachError: Not a graph with static activation quantizers.
        """
        # By name: this package is below the one that knows torch, and loads without it.
        points = import_module("calidrift_agent._points")
        graph = points.QuantizedGraph(points.require_module(graph_module))
        return cls(
            points={
                quantizer.name: PointProfile(
                    name=quantizer.name, clip_bound=quantizer.bound, aliases=quantizer.aliases
                )
                for quantizer in graph.quantizers
            },
            units=0,
            instrument=Instrument.RANGE,
            fingerprint=points.fingerprint_of(graph_module),
            created=utc_now(),
        )

    @classmethod
    def from_onnx(cls, path: str | PathLike[str]) -> "CalibrationProfile":
        """Read the ranges of a QDQ model: clip bounds only, no observations; see `from_pt2e`.

        Args:
            path: A model with static per-tensor activation quantizers (`QuantizeLinear`), as
                `onnxruntime.quantization.quantize_static` writes it.

        Raises:
            ProfileError: The file cannot be read, is no ONNX model, or has no range per tensor.
            ConfigurationError: The extra `[onnx]` is not installed.
        """
        points, fingerprint = import_module("calidrift_agent._onnx").ranges_of_file(path)
        return cls._of_ranges(points, fingerprint)

    @classmethod
    def from_tensorrt_cache(
        cls, path: str | PathLike[str], *, onnx: str | PathLike[str] | None = None
    ) -> "CalibrationProfile":
        """Read the ranges of a TensorRT calibration cache: clip bounds only, no observations.

        Args:
            path: The text that a calibrator's `writeCalibrationCache` wrote.
            onnx: The model that it was made for. With it the points are those of the model, so
                that the profile fits a session of it; without it every tensor of the cache is a
                point, named ``<tensor>:output``.

        Raises:
            ProfileError: A file cannot be read or is malformed, or the two do not belong together.
            ConfigurationError: `onnx` was given, but the extra `[onnx]` is not installed.
        """
        bounds = read_cache(Path(path))
        if onnx is not None:
            package = import_module("calidrift_agent._onnx")
            return cls._of_ranges(*package.ranges_of_tensors(onnx, bounds))
        points = [
            PointProfile(name=f"{tensor}:{Role.OUTPUT}", clip_bound=bound)
            for tensor, bound in bounds.items()
        ]
        return cls._of_ranges(points, Fingerprint())

    @classmethod
    def from_torch_ao(cls, model: "Module") -> "CalibrationProfile":
        """Read the ranges of an INT8 model of `torch.ao`, or of torchao's static layers.

        Clipping can be reported with it. `calibrate` on the model adds how much of the
        calibration's values stands on the rails, which tells clipping from chance where only codes
        are seen, and under which names layers read the tensors.

        Args:
            model: What `torch.ao.quantization.convert` or `convert_fx` returned, or a model after
                torchao's `quantize_` with a static configuration.

        Raises:
            AttachError: No static activation quantizer can be read.
        """
        # By name: this package is below the one that knows torch, and loads without it.
        points = import_module("calidrift_agent._points")
        found = points.static_points(points.require_module(model))
        if found is None:
            raise AttachError(
                f"{type(model).__name__} has no static activation quantizer of torch.ao or "
                "torchao; give the converted INT8 model (of a PT2E graph use from_pt2e)"
            )
        return cls(
            points={
                one.name: PointProfile(name=one.name, clip_bound=one.bound, aliases=one.aliases)
                for one in found.quantizers
            },
            units=0,
            instrument=Instrument.CLIP,
            fingerprint=points.fingerprint_of(model),
            created=utc_now(),
        )

    def merge(self, other: "CalibrationProfile") -> "CalibrationProfile":
        """Return the ranges of one profile with the observations of the other.

        For a served INT8 model: ``from_pt2e(graph).merge(calibrate(fp32_model, batches))``, in
        either order. The result has the points and the fingerprint of the profile with ranges,
        and units, instrument and data of the one with observations.

        Raises:
            ProfileMismatchError: It is not one profile of each kind, ranges differ, or the two
                are not of one network.
        """
        measured = [one for one in (self, other) if _has_observations(one)]
        if len(measured) == 2:
            raise ProfileMismatchError(
                "both profiles hold observations, and a reference is one set of units; keep one "
                "of them, or calibrate once over all batches"
            )
        if not measured:
            raise ProfileMismatchError(
                "neither profile holds observations; merge ranges with a profile that calibrate "
                "measured"
            )
        observed = measured[0]
        ranges = other if observed is self else self
        if not _has_ranges(ranges):
            raise ProfileMismatchError(
                "neither profile holds clip ranges beside the observations of the other; merge "
                "observations with a profile that from_pt2e read"
            )
        return CalibrationProfile(
            points=combine_points(ranges.points, observed.points),
            units=observed.units,
            instrument=observed.instrument,
            fingerprint=combine_fingerprints(ranges.fingerprint, observed.fingerprint),
            created=observed.created,
            reference=observed.reference,
        )

    def require_fits(
        self, point_names: Iterable[str], fingerprint: Fingerprint | None = None
    ) -> None:
        """Raise unless the profile belongs to a model with these points.

        Args:
            point_names: Names of the model's points, see `discover`.
            fingerprint: The model's fingerprint; weights, graph and preprocessing are compared
                where both sides know them.

        Raises:
            ProfileMismatchError: Names what differs.
        """
        names = set(point_names)
        missing = sorted(names - self.points.keys())
        foreign = sorted(self.points.keys() - names)
        problems = []
        if missing:
            problems.append(f"it lacks {listing(missing)}")
        if foreign:
            problems.append(f"it has {listing(foreign)}, which the model has not")
        if fingerprint is not None:
            differing = self.fingerprint.differences(fingerprint)
            problems.extend(f"it was made with other {name}" for name in differing)
        if problems:
            raise ProfileMismatchError(
                f"the profile does not belong to this model: {'; '.join(problems)}. Calibrate "
                "this model, or load the profile that was made for it"
            )

    def _matches(self, digest: str) -> bool:
        try:
            return self.digest == digest
        except UnicodeEncodeError:  # half a character: no profile that was saved holds one
            return False

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "created": self.created,
            "instrument": str(self.instrument),
            "units": self.units,
            "fingerprint": encode_fingerprint(self.fingerprint),
            "points": [encode_point(point) for point in self.points.values()],
            **encode_reference(self.reference),
        }

    @classmethod
    def _of_ranges(
        cls, points: Iterable[PointProfile], fingerprint: Fingerprint
    ) -> "CalibrationProfile":
        return cls(
            points={point.name: point for point in points},
            units=0,
            instrument=Instrument.RANGE,
            fingerprint=fingerprint,
            created=utc_now(),
        )

    @classmethod
    def _parse(cls, text: str, source: str) -> "CalibrationProfile":
        fields = parse(text, source)
        word = fields.text("instrument")
        if word not in list(Instrument):
            fields.refuse("instrument", f"is {word!r}, but must be one of {listing([*Instrument])}")
        points = [decode_point(one) for one in fields.nested_list("points")]
        by_name = {point.name: point for point in points}
        if len(by_name) != len(points):
            fields.refuse("points", "holds two points of one name")
        try:
            profile = cls(
                points=by_name,
                units=fields.integer("units"),
                instrument=Instrument(word),
                fingerprint=decode_fingerprint(fields.nested("fingerprint")),
                created=fields.text("created"),
                reference=decode_reference(fields),
            )
        except ConfigurationError as error:
            fields.refuse("", f"is not usable ({error})", error)
        if not profile._matches(fields.text("digest")):
            raise ProfileFormatError(
                f"{source} does not match its own digest: it is damaged or was edited; {ADVICE}"
            )
        return profile


def utc_now() -> str:
    """Return the time of now as a profile notes it: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _has_ranges(profile: CalibrationProfile) -> bool:
    return any(point.clip_bound is not None for point in profile.points.values())


def _has_observations(profile: CalibrationProfile) -> bool:
    return any(point.has_observations for point in profile.points.values())


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(content).encode("utf-8")).hexdigest()
