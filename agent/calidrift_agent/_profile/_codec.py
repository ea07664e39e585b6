"""Profiles as JSON mappings, and back with every field checked."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, TypeVar, final

from calidrift_agent._profile._bounds import ClipBound, ObservedBound
from calidrift_agent._profile._origin import CALIBRATED, ReferenceOrigin
from calidrift_agent._profile._records import Fingerprint, PointProfile
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import ReferenceSource
from calidrift_agent.errors import ConfigurationError, ProfileFormatError, SketchError

FORMAT: Final = "calidrift-profile"
VERSION: Final = 2
"""Version 2 says where the reference comes from. What needs no word about that is still written as
version 1, so that profiles keep their digests and older versions of Calidrift read them."""
ADVICE: Final = "restore the file from a copy or calibrate again"

_T = TypeVar("_T")


def canonical(mapping: Mapping[str, Any]) -> str:
    """Return the one text of a JSON mapping: sorted keys, no spaces, floats that round-trip."""
    return json.dumps(
        mapping, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def parse(text: str, source: str) -> "Fields":
    """Return the checked outer object of a profile's text.

    Raises:
        ProfileFormatError: Not JSON, not a profile, or of a newer version.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProfileFormatError(
            f"{source} is not a readable profile: it is damaged, cut off or not JSON ({error}); "
            f"{ADVICE}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ProfileFormatError(
            f'{source} is not a Calidrift profile: the field "format" must be "{FORMAT}"; '
            "give a file that CalibrationProfile.save wrote"
        )
    version = content.get("version")
    if type(version) is not int or version < 1:
        raise ProfileFormatError(
            f"{source} has the profile version {version!r}, but a version is a number from 1 up; "
            f"{ADVICE}"
        )
    if version > VERSION:
        raise ProfileFormatError(
            f"{source} has profile version {version}, but this calidrift reads versions up to "
            f"{VERSION}; install a newer calidrift or calibrate again with this one"
        )
    return Fields(content, source, "")


@final
class Fields:
    """A JSON object whose fields are read with their types checked."""

    def __init__(self, content: object, source: str, path: str) -> None:
        self._source = source
        self._path = path
        if not isinstance(content, dict):
            self.refuse("", f"is {_show(content)}, but must be an object")
        self._content: dict[str, Any] = content

    def refuse(self, name: str, problem: str, cause: BaseException | None = None) -> NoReturn:
        """Raise the error that names file, field and problem."""
        where = f"{self._path}.{name}".strip(".") or "the document"
        raise ProfileFormatError(f"{self._source}: {where} {problem}; {ADVICE}") from cause

    def text(self, name: str) -> str:
        """Return a string."""
        return self._typed(name, str, "a text")

    def integer(self, name: str) -> int:
        """Return an integer."""
        return self._typed(name, int, "a whole number")

    def number(self, name: str) -> float:
        """Return a finite float."""
        return self._finite(name, self._get(name))

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return a list of finite floats."""
        return tuple(self._finite(name, one) for one in self._typed(name, list, "a list"))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings."""
        found = self._typed(name, list, "a list")
        if not all(isinstance(one, str) for one in found):
            self.refuse(name, "must hold texts only")
        return tuple(found)

    def table(self, name: str) -> dict[str, str]:
        """Return an object of strings."""
        found = self._typed(name, dict, "an object")
        if not all(isinstance(one, str) for one in found.values()):
            self.refuse(name, "must hold texts only")
        return found

    def nested(self, name: str) -> "Fields":
        """Return a nested object."""
        return Fields(self._get(name), self._source, f"{self._path}.{name}".strip("."))

    def nested_list(self, name: str) -> list["Fields"]:
        """Return a list of nested objects."""
        found = self._typed(name, list, "a list")
        return [Fields(one, self._source, f"{name}[{index}]") for index, one in enumerate(found)]

    def raw(self) -> dict[str, Any]:
        """Return the object itself."""
        return self._content

    def optional(self, name: str, read: Callable[[str], _T]) -> _T | None:
        """Return None for null, else what `read` makes of the field."""
        return None if self._get(name) is None else read(name)

    def _get(self, name: str) -> Any:
        if name not in self._content:
            self.refuse(name, "is missing")
        return self._content[name]

    def _typed(self, name: str, kind: type[_T], expected: str) -> _T:
        value = self._get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            self.refuse(name, f"is {_show(value)}, but must be {expected}")
        return value

    def _finite(self, name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(name, f"is {_show(value)}, but must be a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self.refuse(name, "is not a finite number")
        return number


def encode_point(point: PointProfile) -> dict[str, Any]:
    """Return the JSON object of a point."""
    clip, observed = point.clip_bound, point.observed_bound
    return {
        "name": point.name,
        "aliases": list(point.aliases),
        "clip_bound": None
        if clip is None
        else {
            "lo": clip.lo,
            "hi": clip.hi,
            "scale": clip.scale,
            "zero_point": clip.zero_point,
            "dtype": clip.dtype,
            "qmin": clip.qmin,
            "qmax": clip.qmax,
        },
        "observed_bound": None
        if observed is None
        else {
            "value": observed.value,
            "rank": observed.rank,
            "units": observed.units,
            "top": list(observed.top),
        },
        "rail_low_rate": point.rail_low_rate,
        "rail_high_rate": point.rail_high_rate,
        "sketch": None if point.sketch is None else point.sketch.to_mapping(),
    }


def decode_point(fields: Fields) -> PointProfile:
    """Return the point of a JSON object.

    Raises:
        ProfileFormatError: A field is missing, has another type, or contradicts another.
    """
    clip = fields.optional("clip_bound", fields.nested)
    observed = fields.optional("observed_bound", fields.nested)
    sketch = fields.optional("sketch", fields.nested)
    try:
        return PointProfile(
            name=fields.text("name"),
            clip_bound=None if clip is None else _decode_clip(clip),
            observed_bound=None if observed is None else _decode_observed(observed),
            sketch=None if sketch is None else MagnitudeSketch.from_mapping(sketch.raw()),
            rail_low_rate=fields.optional("rail_low_rate", fields.number),
            rail_high_rate=fields.optional("rail_high_rate", fields.number),
            aliases=fields.texts("aliases"),
        )
    except (ConfigurationError, SketchError) as error:
        fields.refuse("", f"is not usable ({error})", error)


def encode_reference(reference: ReferenceOrigin) -> dict[str, Any]:
    """Return the version of the format, and what the outer object says of the reference."""
    if reference == CALIBRATED:
        return {"version": 1}
    return {
        "version": VERSION,
        "reference": {
            "source": str(reference.source),
            "learned_from": reference.learned_from,
            "began": reference.began,
            "ended": reference.ended,
        },
    }


def decode_reference(fields: Fields) -> ReferenceOrigin:
    """Return where the reference of an outer object comes from.

    Raises:
        ProfileFormatError: A field is missing, has another type, or another word.
        ConfigurationError: The fields contradict each other.
    """
    if "reference" not in fields.raw():
        return CALIBRATED
    found = fields.nested("reference")
    word = found.text("source")
    if word not in list(ReferenceSource):
        found.refuse("source", f"is {word!r}, but must be one of {', '.join(ReferenceSource)}")
    return ReferenceOrigin(
        source=ReferenceSource(word),
        learned_from=found.text("learned_from"),
        began=found.text("began"),
        ended=found.text("ended"),
    )


def encode_fingerprint(fingerprint: Fingerprint) -> dict[str, Any]:
    """Return the JSON object of a fingerprint."""
    return {
        "weights": fingerprint.weights,
        "graph": fingerprint.graph,
        "data": fingerprint.data,
        "preprocessing": fingerprint.preprocessing,
        "versions": dict(fingerprint.versions),
        "isa": fingerprint.isa,
    }


def decode_fingerprint(fields: Fields) -> Fingerprint:
    """Return the fingerprint of a JSON object.

    Raises:
        ProfileFormatError: A field is missing or has another type.
    """
    return Fingerprint(
        weights=fields.text("weights"),
        graph=fields.text("graph"),
        data=fields.text("data"),
        preprocessing=fields.text("preprocessing"),
        versions=fields.table("versions"),
        isa=fields.text("isa"),
    )


def _decode_clip(fields: Fields) -> ClipBound:
    return ClipBound(
        lo=fields.number("lo"),
        hi=fields.number("hi"),
        scale=fields.number("scale"),
        zero_point=fields.integer("zero_point"),
        dtype=fields.text("dtype"),
        qmin=fields.integer("qmin"),
        qmax=fields.integer("qmax"),
    )


def _decode_observed(fields: Fields) -> ObservedBound:
    return ObservedBound(
        value=fields.number("value"),
        rank=fields.integer("rank"),
        units=fields.integer("units"),
        top=fields.numbers("top"),
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not a JSON number")


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
