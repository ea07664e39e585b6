"""What a profile knows about one point, and about where it comes from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, final

from calidrift_agent._profile._bounds import ClipBound, ObservedBound
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent.errors import ConfigurationError


@final
@dataclass(frozen=True, slots=True)
class PointProfile:
    """Reference of one point; a part that is not known is None.

    Attributes:
        name: ``<module>:<role>``.
        clip_bound: The quantizer's range: clipping, saturation and SQNR use it.
        observed_bound: What reference units reached: coverage and exceedance use it. None where
            the point never fired or no unit was finite.
        sketch: Every value of the reference units; treat it as read-only.
        rail_low_rate: Share of the reference values that the quantizer put on its lowest code.
        rail_high_rate: The same for its highest code.
        aliases: Other names of the same tensor.
    """

    name: str
    clip_bound: ClipBound | None = None
    observed_bound: ObservedBound | None = None
    sketch: MagnitudeSketch | None = None
    rail_low_rate: float | None = None
    rail_high_rate: float | None = None
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigurationError("a point without a name cannot be in a profile; name it")
        _require_texts("the names of a point", self.name, *self.aliases)
        for rate in (self.rail_low_rate, self.rail_high_rate):
            if rate is not None and not (math.isfinite(rate) and 0 <= rate <= 1):
                raise ConfigurationError(
                    f"the rail rate of {self.name} is {rate!r}, but a rate lies between 0 and 1"
                )

    @property
    def has_observations(self) -> bool:
        """Whether reference units were measured here."""
        return self.observed_bound is not None or self.sketch is not None


@final
@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a profile was made from. Empty strings mean: not known.

    Attributes:
        weights: Hex sha256 of the weights.
        graph: Hex sha256 of the module tree, or of the graph with its ranges.
        data: Fingerprint of the calibration data.
        preprocessing: Fingerprint of the preprocessing.
        versions: Package name to version.
        isa: Integer instruction sets of the CPU; quantized results depend on them.
    """

    weights: str = ""
    graph: str = ""
    data: str = ""
    preprocessing: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    isa: str = ""

    def __post_init__(self) -> None:
        texts = (self.weights, self.graph, self.data, self.preprocessing, self.isa)
        named = (one for pair in self.versions.items() for one in pair)
        _require_texts("the fields of a fingerprint", *texts, *named)
        # Sorted, so that the digest does not depend on the order in which versions were noted.
        versions = MappingProxyType(dict(sorted(self.versions.items())))
        object.__setattr__(self, "versions", versions)

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled; the plain fields can.
        fields = (self.weights, self.graph, self.data, self.preprocessing)
        return type(self), (*fields, dict(self.versions), self.isa)

    def differences(self, other: "Fingerprint") -> tuple[str, ...]:
        """Return what two fingerprints disagree on, of what makes a profile fit a model.

        Weights, graph and preprocessing count where both sides know them. Data, versions and
        instruction sets are a record of where a profile was made, not a property of the model.

        Example:
            >>> Fingerprint(weights="aa", isa="avx2").differences(Fingerprint(weights="bb"))
            ('weights',)
        """
        pairs = {
            "weights": (self.weights, other.weights),
            "graph": (self.graph, other.graph),
            "preprocessing": (self.preprocessing, other.preprocessing),
        }
        return tuple(name for name, (one, two) in pairs.items() if one and two and one != two)


def _require_texts(what: str, *texts: object) -> None:
    """Refuse what the file could not say, before somebody has to find out when saving."""
    for text in texts:
        if not isinstance(text, str) or not _is_writable(text):
            raise ConfigurationError(
                f"{what} must be texts that UTF-8 can hold, got {text!r}; give another one"
            )


def _is_writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
