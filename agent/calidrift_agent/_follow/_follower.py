"""A thread that keeps a serving process at the version that its registry names."""

import logging
import math
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from types import NoneType
from typing import Any, Final, final

from calidrift_agent import _environment
from calidrift_agent._follow._kernels import count_int8_kernels, planned_int8_kernels
from calidrift_agent._follow._metrics import FollowerCollector
from calidrift_agent._follow._options import FollowOptions
from calidrift_agent._follow._outcome import FollowOutcome
from calidrift_agent._follow._source import FolderSource, Source
from calidrift_agent._follow._status import FollowStatus
from calidrift_agent._registry import Mirror, Pointer, Version, VersionLayout, is_url
from calidrift_agent.errors import ConfigurationError, RegistryError, RegistryUnreachableError

_log = logging.getLogger("calidrift_agent")
_CLOSE_SECONDS: Final = 5.0
"""How long `close` waits for a load or swap that is under way."""

Load = Callable[[Version], Any]
"""Makes what serves of a version: loads, compiles, warms up. On the follower's thread."""
Swap = Callable[[Version, Any], object]
"""Puts it into service between two requests. On the follower's thread."""
Run = Callable[[Any], object]
"""Runs what was loaded once, on inputs like those of a request."""


def follow(
    registry: str | PathLike[str],
    model: str,
    *,
    load: Load,
    swap: Swap,
    run: Run | None = None,
    serving: Version | None = None,
    options: FollowOptions | None = None,
) -> "Follower":
    """Bring versions that are promoted, or rolled back to, into this process.

    A thread reads the registry's pointer. Where it names another version, every file is verified,
    `load` makes what serves, `run` runs it once while its INT8 kernels are counted, and `swap`
    puts it into service. Whatever fails leaves the old version in service, is logged once,
    counted, and shown by `Follower.status` and in the metrics.

    Call it where the model serves: in the worker. A child that is forked later does not follow,
    and its status says so.

    A registry may be a URL that fsspec knows (`s3://bucket/models`), where the analyzer publishes
    what it promotes. Then each version is copied into `FollowOptions.cache`, verified, and given
    its name by a rename before it is loaded. While the store does not answer, what serves goes on;
    a process that starts in that time serves the last version that was copied.

    Args:
        registry: The registry's folder, or its URL.
        model: Name of the model in it.
        load: Makes what serves of a version. It runs beside requests and may take minutes.
        swap: Puts what `load` returned into service; called with the version and it.
        run: Runs what `load` returned once. Where given, the INT8 kernels of that run must be at
            least those that the version was validated with. Leave it out for models that have no
            INT8 kernels of oneDNN.
        serving: What the process serves already, from `open_version`; None where nothing, then
            the version that the registry names is loaded at once.
        options: How; the defaults where not given.

    Returns:
        The follower. Close it when the service ends.

    Raises:
        ConfigurationError: A name, an option or a callable cannot be used, or the package of a
            URL's store is not installed.

    Cost: one small read per `poll_seconds`; with a new version, one sha256 over its files.
    """
    calls: tuple[tuple[str, object], ...] = (("load", load), ("swap", swap), ("run", run))
    for name, given in calls:
        if not callable(given) and not (name == "run" and given is None):
            raise ConfigurationError(f"{name} must be callable, got {given!r}")
    kinds: tuple[tuple[str, object, tuple[type, ...], str], ...] = (
        ("registry", registry, (str, PathLike), "the path of a folder, or a URL"),
        ("model", model, (str,), "the name of a model"),
        ("serving", serving, (Version, NoneType), "what open_version returned, or None"),
        ("options", options, (FollowOptions, NoneType), "FollowOptions(...), or None"),
    )
    for name, given, kind, allowed in kinds:
        if not isinstance(given, kind):
            raise ConfigurationError(f"{name} must be {allowed}, got {given!r}")
    options = options or FollowOptions()
    source = _source(registry, model, options)
    follower = Follower(source, load, swap, run, serving, options)
    follower._start()
    return follower


def _source(registry: str | PathLike[str], model: str, options: FollowOptions) -> Source:
    if not (isinstance(registry, str) and is_url(registry)):
        return FolderSource(VersionLayout(registry, model))
    if options.cache is None:
        raise ConfigurationError(
            f"{registry} is a URL, whose versions are copied before they are loaded; say where to: "
            "follow(..., options=FollowOptions(cache='/var/cache/calidrift'))"
        )
    return Mirror(registry, model, options.cache, options.keep_versions)


@final
class Follower:
    """Follows one model of a registry; made by `follow`."""

    def __init__(
        self,
        source: Source,
        load: Load,
        swap: Swap,
        run: Run | None,
        serving: Version | None,
        options: FollowOptions,
    ) -> None:
        self._source = source
        self._load, self._swap, self._run = load, swap, run
        self._options = options
        self._serving = None if serving is None else serving.id
        self._wanted = self._serving
        self._problem: str | None = None
        self._attempts: Counter[FollowOutcome] = Counter()
        self._failed: _Failed | None = None
        self._away = False
        told = _environment.read()
        self._canary = told.canary if options.canary is None else options.canary
        self._trial: str | None = None
        self._ended = told.disabled
        self._begin()

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    @property
    def status(self) -> FollowStatus:
        """Where it stands; any thread may ask."""
        thread = self._thread
        with self._lock:
            return FollowStatus(
                model=self._source.model,
                active=not self._ended and thread is not None and thread.is_alive(),
                serving=self._serving,
                wanted=self._wanted,
                problem=self._problem,
                attempts=dict(self._attempts),
                canary=self._canary,
                trial=self._trial is not None and self._trial == self._serving,
            )

    def collector(self) -> FollowerCollector:
        """Make a Prometheus collector: the version that serves, and what attempts came to."""
        return FollowerCollector(lambda: self.status)

    def poll(self) -> FollowStatus:
        """Look at the registry now, on this thread; what the follower's own thread does.

        Returns:
            Where it stands afterwards.
        """
        with self._working:
            if not self._ended:
                self._look()
        return self.status

    def close(self) -> None:
        """Stop following; what serves goes on serving. A second call does nothing."""
        self._ended = True
        self._wake.set()
        # A swap that has begun ends before this returns; none begins behind it.
        if self._swapping.acquire(timeout=_CLOSE_SECONDS):
            self._swapping.release()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSE_SECONDS)

    def _begin(self) -> None:
        self._lock = threading.Lock()  # of the figures: held for moments
        self._working = threading.Lock()  # of an attempt: one at a time
        self._swapping = threading.RLock()  # of a swap, which may close its own follower
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def _start(self) -> None:
        if self._ended:
            return
        _register(self)
        self._thread = threading.Thread(
            target=_keep_polling,
            args=(weakref.ref(self), self._wake, self._options.poll_seconds),
            name="calidrift-follow",
            daemon=True,
        )
        self._thread.start()

    def _after_fork(self) -> None:
        """Stand still in a child: the thread stayed behind, and locks may be held by it.

        Nothing is started here: other libraries hold their locks at this moment.
        """
        self._begin()
        self._ended = True
        self._problem = "this process was forked after follow(...): call it in the worker"

    def _look(self) -> None:
        try:
            pointer = self._source.pointer()
        except RegistryUnreachableError as error:
            self._stay(str(error))
            return
        except RegistryError as error:
            # Perhaps it is being restored: what it named before is still what is wanted.
            self._away = False
            self._tell(FollowOutcome.DAMAGED, str(error))
            return
        self._away = False
        wanted = pointer
        if self._canary and pointer is not None and pointer.canary is not None:
            wanted = pointer.canary
        with self._lock:
            self._trial = wanted.version if wanted is not None and wanted is not pointer else None
            self._wanted = None if wanted is None else wanted.version
            if wanted is None or wanted.version == self._serving:
                self._problem = None
                return
            failed = self._failed
        self._try(wanted, failed)
        if wanted is not pointer and pointer is not None and self.status.serving is None:
            # A replica that has just started, and cannot serve what is tried: it is no worse off
            # than the others.
            self._try(pointer, None)

    def _try(self, pointer: Pointer, failed: "_Failed | None") -> None:
        """Attempt a version, unless it failed a moment ago."""
        if failed is None or failed.pointer != pointer or time.monotonic() >= failed.not_before:
            self._attempt(pointer)
        else:
            with self._lock:
                self._problem = failed.problem

    def _stay(self, problem: str) -> None:
        """Keep what serves while the store is away; with nothing, serve what was copied last."""
        with self._lock:
            serving, failed = self._serving, self._failed
        if serving is None and (pointer := self._source.last_known()) is not None:
            with self._lock:
                self._wanted = self._wanted or pointer.version
            self._try(pointer, failed)
        with self._lock:
            self._attempts[FollowOutcome.UNREACHABLE] += 1
            self._problem, known, self._away = problem, self._away, True
            serving = self._serving
        if not known:  # each look may put it into other words
            _log.warning("calidrift: %s keeps %s: %s", self._source.model, serving, problem)

    def _attempt(self, pointer: Pointer) -> None:
        try:
            trial = pointer.version == self._trial
            version = self._source.open(pointer, self._serving, remember=not trial)
        except RegistryUnreachableError as error:
            self._fail(FollowOutcome.UNREACHABLE, str(error), pointer)
            return
        except RegistryError as error:
            self._fail(FollowOutcome.DAMAGED, str(error), pointer)
            return
        try:
            loaded = self._load(version)
            missing = self._missing_kernels(version, loaded)
        except (Exception, SystemExit) as error:
            said = f"{version.id} cannot be loaded: {error!r}"
            self._fail(FollowOutcome.LOAD_FAILED, said, pointer)
            return
        if missing is not None:
            self._fail(FollowOutcome.KERNELS_MISSING, missing, pointer)
            return
        try:
            with self._swapping:
                if self._ended:
                    return  # closed while it was loaded: nothing changes any more
                self._swap(version, loaded)
        except (Exception, SystemExit) as error:
            said = f"{version.id} could not be put into service: {error!r}"
            self._fail(FollowOutcome.SWAP_FAILED, said, pointer)
            return
        with self._lock:
            self._serving, self._problem = version.id, None
            if self._failed is None or self._failed.pointer.version != self._trial:
                self._failed = None
            self._attempts[FollowOutcome.SERVED] += 1
        _log.info("calidrift: %s serves version %s", self._source.model, version.id)

    def _missing_kernels(self, version: Version, loaded: Any) -> str | None:
        if self._run is None:
            return None
        run, planned = self._run, planned_int8_kernels(version)
        if planned is None:
            run(loaded)
            return None
        found = count_int8_kernels(lambda: run(loaded))
        if found >= planned:
            return None
        return (
            f"{version.id} runs {found} of {planned} validated INT8 kernels here, so it would "
            "serve in float; it is not served: look at the compiler and the CPU of this machine, "
            "or roll back"
        )

    def _fail(self, outcome: FollowOutcome, problem: str, pointer: Pointer) -> None:
        again = time.monotonic() + self._options.retry_seconds
        if outcome is FollowOutcome.KERNELS_MISSING:
            again = math.inf
        with self._lock:
            self._attempts[outcome] += 1
            self._failed = _Failed(pointer, problem, again)
        self._tell(None, problem)

    def _tell(self, outcome: FollowOutcome | None, problem: str) -> None:
        """Show a problem; count and log it where it is a new one."""
        with self._lock:
            known, self._problem = self._problem == problem, problem
            if outcome is not None and not known:
                self._attempts[outcome] += 1
        if not known:
            _log.warning("calidrift: %s keeps %s: %s", self._source.model, self._serving, problem)


@final
@dataclass(frozen=True, slots=True)
class _Failed:
    """A version that could not be served, and when it is tried again."""

    pointer: Pointer
    problem: str
    not_before: float


def _keep_polling(
    found: "weakref.ref[Follower]", wake: threading.Event, poll_seconds: float
) -> None:
    """Poll until the follower is closed or forgotten."""
    while not wake.is_set():
        follower = found()
        if follower is None:
            return
        try:
            follower.poll()
        except Exception:
            _log.exception("calidrift: following a registry failed")
        del follower
        wake.wait(poll_seconds)


_followers: "weakref.WeakSet[Follower]" = weakref.WeakSet()
_hooked = False


def _register(follower: Follower) -> None:
    global _hooked
    if not _hooked:
        _hooked = True
        os.register_at_fork(after_in_child=_after_fork)
    _followers.add(follower)


def _after_fork() -> None:
    for follower in list(_followers):
        follower._after_fork()
