"""The closed list of what can become of a version that a registry names."""

from enum import StrEnum


class FollowOutcome(StrEnum):
    """What became of one attempt to serve a version; a label of exported metrics."""

    SERVED = "served"
    """Loaded, its kernels counted, and swapped in."""
    DAMAGED = "damaged"
    """The registry cannot be read, or a file of the version is not what its manifest says."""
    LOAD_FAILED = "load_failed"
    """The host's `load` raised."""
    KERNELS_MISSING = "kernels_missing"
    """Fewer INT8 kernels ran than were validated: the model would serve in float."""
    SWAP_FAILED = "swap_failed"
    """The host's `swap` raised."""
    UNREACHABLE = "unreachable"
    """The store behind the registry's URL did not answer; counted at every look."""
