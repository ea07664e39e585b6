"""TensorRT's text calibration cache: a header, then one scale per tensor.

``TRT-8501-EntropyCalibration2`` and lines ``name: 3c010a14``, where the eight digits are the bits
of a float32, most significant first; leading zeros may be missing, and a tensor that was always 0
has ``0``. The scale is the step between two codes: activations are quantized symmetrically to
-128 to 127, so that the range ends at 127 scales.
"""

import math
import re
import struct
from pathlib import Path
from typing import Final

from calidrift_agent._profile._bounds import ClipBound
from calidrift_agent.errors import ConfigurationError, ProfileError

_LARGEST: Final = 64 * 1024 * 1024
_HEADER: Final = re.compile(r"TRT-\w+-\w+")
_ENTRY: Final = re.compile(r"(?P<name>.*\S)\s*:\s*(?:0x)?(?P<bits>[0-9a-fA-F]{1,8})")
_ADVICE: Final = "give the file that the calibrator's writeCalibrationCache wrote"


def read_cache(path: Path) -> dict[str, ClipBound | None]:
    """Return the range of each tensor, None for one that was always 0.

    Raises:
        ProfileError: The file cannot be read, or is no calibration cache.
    """
    lines = _text(path).splitlines()
    if not lines or not _HEADER.fullmatch(lines[0].strip()):
        first = lines[0][:60] if lines else ""
        raise ProfileError(
            f"{path} is no TensorRT calibration cache: it begins with {first!r} and not with a "
            f"line such as TRT-8501-EntropyCalibration2; {_ADVICE}"
        )
    found: dict[str, ClipBound | None] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        name, bound = _entry(path, number, line.strip())
        if name in found:
            raise ProfileError(
                f"line {number} of {path} gives a second scale for {name!r}, but a cache has one "
                f"for each tensor; {_ADVICE}"
            )
        found[name] = bound
    if not any(found.values()):
        raise ProfileError(f"{path} holds no range of any tensor; {_ADVICE}")
    return found


def _entry(path: Path, number: int, line: str) -> tuple[str, ClipBound | None]:
    match = _ENTRY.fullmatch(line)
    if match is None:
        raise ProfileError(
            f"line {number} of {path} is {line[:60]!r}, but must be a tensor's name, a colon and "
            f"up to eight hexadecimal digits; {_ADVICE}"
        )
    name = match["name"]
    (scale,) = struct.unpack("!f", bytes.fromhex(match["bits"].rjust(8, "0")))
    if scale == 0.0:
        return name, None
    try:
        if not math.isfinite(scale):
            raise ConfigurationError("it is not finite")
        return name, ClipBound.of_quantizer(scale, 0, -128, 127, "int8")
    except ConfigurationError as error:
        raise ProfileError(
            f"line {number} of {path} gives {name!r} the scale {scale!r}, but a scale is a finite "
            "number above 0; calibrate again on inputs with finite activations"
        ) from error


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise ProfileError(
                f"{path} is larger than 64 MiB and no TensorRT calibration cache; {_ADVICE}"
            )
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProfileError(
            f"{path} is no TensorRT calibration cache: it is not a text; {_ADVICE}"
        ) from error
    except (OSError, ValueError) as error:
        if isinstance(error, ProfileError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ProfileError(f"{path} cannot be read ({reason}); {_ADVICE}") from error
