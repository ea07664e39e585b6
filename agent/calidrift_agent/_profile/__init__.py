"""The calibration profile: bounds, reference sketches and fingerprints, on disk as JSON."""

from calidrift_agent._profile._bounds import TOP_LIMIT, ClipBound, ObservedBound
from calidrift_agent._profile._calibration import CalibrationProfile, utc_now
from calidrift_agent._profile._origin import ReferenceOrigin
from calidrift_agent._profile._records import Fingerprint, PointProfile

__all__ = [
    "TOP_LIMIT",
    "CalibrationProfile",
    "ClipBound",
    "Fingerprint",
    "ObservedBound",
    "PointProfile",
    "ReferenceOrigin",
    "utc_now",
]
