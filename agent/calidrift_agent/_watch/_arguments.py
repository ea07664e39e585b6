"""Whether the arguments of `watch` are of the kind that it takes: one sentence where not."""

import os
from collections.abc import Mapping
from numbers import Real
from typing import Final

from torch import nn

from calidrift_agent._attach import WatchOptions
from calidrift_agent._capture import CaptureOptions
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent.errors import AttachError, ConfigurationError

_LONGEST: Final = 256
"""Characters of a name: it is a label of every metric."""


def require_arguments(
    name: object,
    sample_rate: object,
    profile: object,
    state_dir: object,
    capture: object,
    rarer: Mapping[str, object],
) -> None:
    """Refuse arguments of `watch` that are of a wrong kind, or out of range; looks at no file.

    Args:
        name: As given to `watch`; so are all others.
        sample_rate: Share of the calls.
        profile: A profile, or its path.
        state_dir: Folder.
        capture: Limits of captures.
        rarer: `reference` and `options`.

    Raises:
        ConfigurationError: One is of a wrong kind.
        AttachError: The reference is no module.
    """
    if not (isinstance(name, str) and name.strip() and name.isprintable()):
        raise ConfigurationError(
            f"name is {_shown(name)}, but must be a printable text; it names the model in files "
            'and metrics, e.g. name="resnet18"'
        )
    if len(name) > _LONGEST:
        raise ConfigurationError(
            f"name has {len(name)} characters, but may have {_LONGEST}: it is a label of every "
            "metric; choose a shorter one"
        )
    if isinstance(sample_rate, bool) or not (
        isinstance(sample_rate, Real) and 0.0 <= float(sample_rate) <= 1.0
    ):
        raise ConfigurationError(
            f"sample_rate is {_shown(sample_rate)}, but is a share of the calls from 0 to 1; 0.01 "
            "observes one call in a hundred"
        )
    if not (profile is None or isinstance(profile, CalibrationProfile) or _is_path(profile)):
        raise ConfigurationError(
            f"profile is {_shown(profile)}, but must be a CalibrationProfile, the path of one, or "
            "None; give what calibrate returned, or where it was saved"
        )
    if not (state_dir is None or _is_path(state_dir)):
        raise ConfigurationError(
            f"state_dir is {_shown(state_dir)}, but must be the path of a folder, or None; give "
            'one that all workers share, e.g. "/run/calidrift"'
        )
    if not (capture is None or isinstance(capture, CaptureOptions)):
        raise ConfigurationError(
            f"capture is {_shown(capture)}, but must be a CaptureOptions, or None for no captures; "
            "capture=CaptureOptions() keeps rows within the default limits"
        )
    _require_rarer(rarer)


def _require_rarer(rarer: Mapping[str, object]) -> None:
    reference, options = rarer.get("reference"), rarer.get("options")
    if not (reference is None or isinstance(reference, nn.Module)):
        raise AttachError(
            f"reference is {type(reference).__name__}, but must be the FP32 torch.nn.Module that "
            "the served model was made from; leave it out to do without"
        )
    if not (options is None or isinstance(options, WatchOptions)):
        raise ConfigurationError(
            f"options is {_shown(options)}, but must be a WatchOptions, or None for the defaults; "
            "write options=WatchOptions(budget=0.01)"
        )


def _is_path(value: object) -> bool:
    """Whether a value is a path of text that the system takes: not empty, without a NUL."""
    try:
        path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    except Exception:  # an object of the caller's
        return False
    return isinstance(path, str) and bool(path) and "\0" not in path


def _shown(value: object) -> str:
    """Return a value and its kind, short enough for a sentence."""
    try:
        text = repr(value)
    except Exception:  # an object of the caller's
        text = "an object"
    if len(text) > 80 or "\n" in text:
        return f"of type {type(value).__name__}"
    return f"{text} (of type {type(value).__name__})"
