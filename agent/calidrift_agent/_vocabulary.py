"""Closed vocabularies of the agent: every word that reaches a disk or a metric label.

Adding a member is a format change: readers of older versions refuse words they do not know.
"""

from enum import IntEnum, IntFlag, StrEnum


class ExitCode(IntEnum):
    """How a command ended; a shell script may rely on it."""

    DONE = 0
    REFUSED = 1
    """A gate said no; nothing was changed."""
    USAGE = 2
    """A command line, configuration, file or machine that cannot be used as it is."""
    INTERNAL = 3
    """A defect of Calidrift, or a child process that died."""


class Role(StrEnum):
    """Which tensor of a module a point observes."""

    INPUT = "input"
    OUTPUT = "output"


class Instrument(StrEnum):
    """What a figure was measured on; figures of two instruments are never compared."""

    RANGE = "range"
    """The tensor as it would be without activation quantization."""
    CLIP = "clip"
    """The tensor inside the served, quantized graph, before its quantizer."""


class Strategy(StrEnum):
    """How a sampled request is observed."""

    INSTEAD = "instead"
    """The sampled request itself runs on taps (eager modules)."""
    BESIDE = "beside"
    """A shadow pass on another thread replays one row (compiled and quantized graphs)."""
    EDGES = "edges"
    """Inputs and outputs of the model only (what can neither be opened nor run a second time)."""


class Stage(StrEnum):
    """Where inside the agent something failed (label of the error counter)."""

    SAMPLE = "sample"
    TAP = "tap"
    SHADOW = "shadow"
    DRAIN = "drain"
    STATE = "state"
    CAPTURE = "capture"


class DropReason(StrEnum):
    """Why something the agent wanted to keep was dropped (label of the drop counter)."""

    QUEUE_FULL = "queue_full"
    DISK_FULL = "disk_full"
    CAPTURE_LIMIT = "capture_limit"
    STATE_UNAVAILABLE = "state_unavailable"
    UNSUITABLE_INPUT = "unsuitable_input"
    STATEFUL_CALL = "stateful_call"
    """A call that carries a cache or a state, which a second run would change."""
    RATE_LIMIT = "rate_limit"
    REDACTED = "redacted"
    """The host's redaction said no, or failed."""
    NO_KEY = "no_key"
    """Captures must be encrypted, but there is no key."""


class AgentState(StrEnum):
    """What a watch is doing, and if it does not observe any more, why."""

    ACTIVE = "active"
    KILLED = "killed"
    """The kill file was found; a new watch is needed to observe again."""
    ERRORS = "errors"
    """There were too many errors in a row."""
    BUDGET = "budget"
    """It could not keep within its budget, at any sampling ratio."""
    CLOSED = "closed"
    """`Watch.close` was called."""


class ReferenceSource(StrEnum):
    """Where the reference units of a profile come from."""

    CALIBRATION = "calibration"
    """The rows of a calibration set, taken to be random units of the traffic."""
    PROVISIONAL = "provisional"
    """A calibration set with samples that were selected, or sums over production: no random units.
    Bounds of them serve until random units of production have replaced them."""
    PRODUCTION = "production"
    """Random units of production, one after the other."""


class CaptureKind(StrEnum):
    """Which of the two capture stores a file belongs to."""

    UNCOVERED = "uncovered"
    UNIFORM = "uniform"


class WindowFlag(IntFlag):
    """What a reader must know about a window before trusting its times and extremes."""

    NONE = 0
    EARLY = 1
    """Closed before its UTC-aligned end (flush, close, or a full slot)."""
    COARSE = 2
    """Stands for several windows that the ring had overwritten: counts exact, extremes too wide."""
    KILLED = 4
    """The watch had let go of its model because of the kill file; see `AgentState`."""
    ERRORS = 8
    BUDGET = 16
    CLOSED = 32


class CountColumn(IntEnum):
    """Integer columns of a point inside a window; all of them add."""

    UNITS = 0
    EXCEEDANCES = 1
    ROWS = 2
    ELEMENTS = 3
    CLIP_ELEMENTS = 4
    CLIP_LOW = 5
    CLIP_HIGH = 6
    NAN = 7
    INF = 8
    PADDED_ELEMENTS = 9
    """Elements of padded positions, which count in no other column."""
    RATIO_FIRST = 10
    """First of `len(RATIO_BOUNDS) + 1` buckets of unit absmax ÷ observed bound."""
    UNITS_MEASURED = 10 + 11
    """Units whose magnitude was measured, whether or not there is a bound to compare it with."""
    UNITS_NOT_FINITE = 10 + 12
    """Of these, units that hold a NaN or an infinity."""


RATIO_BOUNDS: tuple[float, ...] = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
RATIO_COLUMNS: slice = slice(
    CountColumn.RATIO_FIRST, CountColumn.RATIO_FIRST + len(RATIO_BOUNDS) + 1
)
COUNT_COLUMNS: int = CountColumn.UNITS_NOT_FINITE + 1


class ValueColumn(IntEnum):
    """Float columns of a point inside a window."""

    LOWEST = 0
    """Minimum of all finite values seen (merge: min); +inf where none."""
    HIGHEST = 1
    """Maximum of all finite values seen (merge: max); -inf where none."""
    RATIO_SUM = 2
    """Sum of unit absmax ÷ observed bound over units with a finite absmax (merge: add)."""
    CLIPPED_ENERGY = 3
    """Sum of squared distance to the clip range over all elements (merge: add)."""
    ENERGY = 4
    """Sum of squares over the same elements, estimated from the sampled ones (merge: add)."""
    PADDED_LOWEST = 5
    """Minimum of all finite values at padded positions (merge: min); +inf where none."""
    PADDED_HIGHEST = 6
    """Maximum of all finite values at padded positions (merge: max); -inf where none."""
    UNIT_HIGHEST = 7
    """Largest finite magnitude of any unit of inference (merge: max); -inf where none."""


VALUE_COLUMNS: int = len(ValueColumn)


class RequestColumn(IntEnum):
    """Integer counters of a window that belong to requests, not to points; all of them add."""

    SEEN = 0
    SAMPLED = 1
    OBSERVED = 2
    UNITS = 3
    UNITS_COVERED = 4
    """Units whose row was inside the observed bound of every point."""
    OVERHEAD_NS = 5
    """The agent's own time inside and beside requests."""
    FORWARD_NS = 6
    """Forward time of all requests, measured on sampled ones and scaled to the seen ones."""
    STEPS = 7
    """Decode steps of requests that were counted with their first call."""
    COMPARED = 8
    """Units whose served output was compared with that of the reference model."""
    RANKED = 9
    """Of these, units whose output has classes: two or more values in its last dimension."""
    AGREED = 10
    """Of these, units with the same most likely class."""
    NOISE_PPB = 11
    """Sum of min(1, noise energy ÷ signal energy) of the compared outputs, in 1e-9."""
    DISTANCE_PPB = 12
    """Sum of (1 - cosine) ÷ 2 of the compared outputs, in 1e-9."""
    ERROR_FIRST = 13
    """First of `len(Stage)` error counters, in the order of `Stage`."""
    DROP_FIRST = 13 + len(Stage)
    """First of `len(DropReason)` drop counters, in the order of `DropReason`."""


REQUEST_COLUMNS: int = RequestColumn.DROP_FIRST + len(DropReason)
