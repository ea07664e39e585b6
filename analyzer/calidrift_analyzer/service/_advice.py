"""What to do next, in the words of whoever reads it from a running service."""

import re
from typing import Final

__all__ = ["while_serving"]

_ORDER: Final = "order a recalibration, on the model's page or with `calidrift jobs start`"
_INSTEAD: Final = (
    ("run `calidrift select`, then `calidrift recalibrate`", _ORDER),
    ("run `calidrift recalibrate`", _ORDER),
    ("look with `calidrift coverage` ", "look on the model's page "),
    ("look again with `calidrift status` when", "look again when"),
)
_LEARN: Final = re.compile(r"`calidrift reference learn[^`]*`")
_PAUSE: Final = "while `calidrift serve` is stopped for a moment"


def while_serving(step: str) -> str:
    """Say what works while the service runs.

    Assessments speak to people who type commands. Several of these need the database, which the
    service holds: it does the same by a button, and by `calidrift jobs`. Only a reference is not
    learned by the service.

    Args:
        step: What an assessment says is to be done.

    >>> while_serving("look again with `calidrift status` when more requests were observed")
    'look again when more requests were observed'
    """
    for typed, instead in _INSTEAD:
        step = step.replace(typed, instead)
    return _LEARN.sub(lambda found: f"{found[0]} ({_PAUSE})", step)
