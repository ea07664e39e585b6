"""Publishing what serves at a URL: files first and verified, the pointer last."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Final, final

from calidrift_agent._registry import (
    MANIFEST_FILE,
    Pointer,
    RegistryStore,
    VersionLayout,
    listed_files,
    open_named,
    read_pointer,
)
from calidrift_agent.errors import RegistryError, RegistryUnreachableError
from calidrift_analyzer.errors import CalidriftError
from calidrift_analyzer.promote._files import locked
from calidrift_analyzer.promote._steps import StepCallback, ignore_step

__all__ = ["Publication", "publication", "publish"]

_log = logging.getLogger(__name__)
_ROUNDS: Final = 8
"""How often the pointer may move while files are sent, before the next publication takes over."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What a URL names now.

    Attributes:
        url: The URL.
        version: The version that its pointer names; `None` where nothing was promoted yet.
        sent: Files that were sent; those that were there already are not.
        moved: Whether its pointer named another version before.
    """

    url: str
    version: str | None
    sent: int = 0
    moved: bool = False


def publish(
    registry: str | PathLike[str],
    model: str,
    url: str,
    *,
    thorough: bool = True,
    on_step: StepCallback | None = None,
) -> Publication:
    """Let a URL serve the version that serves in a registry, and its canary where there is one.

    The registry stays the authority. Files that are not at the URL are sent, and each one is read
    back and compared by size and sha256 before the pointer is replaced; so the pointer there names
    what is wholly there, whenever this is interrupted. The next call goes on with what is missing.
    Nothing is ever removed there.

    Args:
        registry: The registry's folder.
        model: Name of the model.
        url: Any URL that fsspec knows.
        thorough: Whether every file is read back although the pointer is right; otherwise the
            sizes are compared, which costs a few requests.
        on_step: Told of every step.

    Returns:
        What the URL names now.

    Raises:
        ConfigurationError: The URL cannot be used, or the package of its store is missing.
        RegistryError: The version that serves is damaged, or arrived so; what the URL named before
            it still does.
        RegistryUnreachableError: The store does not answer, or refuses; likewise.

    Cost: each file is sent once and read back once.
    """
    layout, store = VersionLayout(registry, model), RegistryStore(url, model)
    if read_pointer(layout) is None:
        return Publication(url=store.url, version=None)
    try:
        return _published(layout, store, thorough, on_step or ignore_step)
    except OSError as error:
        if isinstance(error, RegistryError):
            raise
        raise RegistryError(
            f"the registry {layout.root} cannot be read or locked ({error.strerror or error}); "
            "correct its permissions"
        ) from error


def publication(registry: str | PathLike[str], model: str, url: str | None) -> str | None:
    """Publish what serves now, and say what came of it; a failure changes nothing here.

    Args:
        registry: The registry's folder.
        model: Name of the model.
        url: Where; `None` for nowhere.

    Returns:
        Half a sentence for people; `None` where there is no URL.
    """
    if url is None:
        return None
    try:
        found = publish(registry, model, url)
    except Exception as error:
        # The move is made: nothing that the package of a store does may make it look undone.
        if not isinstance(error, CalidriftError):
            _log.exception("publishing %s failed by a defect", model)
        return (
            f"it is not yet at {url}: {error}; `calidrift serve` tries again by itself, as do the "
            "next promotion and `calidrift publish`"
        )
    return f"{found.version} is at {found.url}"


def _published(
    layout: VersionLayout, store: RegistryStore, thorough: bool, step: StepCallback
) -> Publication:
    # A canary is published with what serves: whole, before the pointer that names it.
    sent = 0
    with _publishing(layout):
        for _ in range(_ROUNDS):
            pointer = read_pointer(layout)
            if pointer is None:
                raise RegistryError(f"{layout.pointer} has gone; promote again")
            before = _named(store)
            if (
                before == pointer
                and not thorough
                and all(_seems_whole(layout, store, one) for one in pointer.named)
            ):
                return Publication(url=store.url, version=pointer.version, sent=sent)
            sent += sum(_send(layout, store, one, step) for one in pointer.named)
            if read_pointer(layout) != pointer:
                continue  # somebody promoted or rolled back meanwhile: that is what counts
            if before != pointer:
                step("point")
                store.point(pointer)
                if store.pointer() != pointer:
                    raise RegistryError(
                        f"the pointer at {store.url} is not the one that was written; does another "
                        "registry publish there?"
                    )
            step("published")
            return Publication(
                url=store.url, version=pointer.version, sent=sent, moved=before != pointer
            )
    raise RegistryError(
        f"{layout.model} is promoted and rolled back faster than it can be published"
    )


def _named(store: RegistryStore) -> Pointer | None:
    """What the URL names; a damaged pointer counts as none, and is replaced.

    Raises:
        RegistryUnreachableError: The store does not answer.
    """
    try:
        return store.pointer()
    except RegistryUnreachableError:
        raise
    except RegistryError:
        return None


@contextmanager
def _publishing(layout: VersionLayout) -> Iterator[None]:
    """Let one process publish at a time; promotions and rollbacks do not wait for it."""
    with locked(layout, layout.root / ".publishing", "another publication"):
        yield


def _seems_whole(layout: VersionLayout, store: RegistryStore, pointer: Pointer) -> bool:
    return all(
        store.size(store.place(pointer.version, name)) == size
        for name, (_, size) in _files(layout, pointer).items()
    )


def _send(layout: VersionLayout, store: RegistryStore, pointer: Pointer, step: StepCallback) -> int:
    """Send what is missing of a version, and verify all of it; the manifest comes last."""
    version = open_named(layout, pointer)  # nothing damaged leaves this machine
    sent = 0
    for name, (digest, size) in _files(layout, pointer).items():
        place = store.place(pointer.version, name)
        if store.holds(place, digest, size):
            continue
        step(f"send {name}")
        store.send(version.path / name, place)
        sent += 1
        if not store.holds(place, digest, size):
            raise RegistryError(
                f"{store.shown(place)} arrived damaged, so nothing names it; it is sent again with "
                "the next publication"
            )
    return sent


def _files(layout: VersionLayout, pointer: Pointer) -> dict[str, tuple[str, int]]:
    path = layout.version(pointer.version) / MANIFEST_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RegistryError(f"{path} cannot be read ({error.strerror}); restore it") from error
    files = listed_files(content, path)
    return {**files, MANIFEST_FILE: (pointer.manifest_sha256, len(content))}
