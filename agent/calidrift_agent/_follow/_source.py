"""Where a follower looks: a registry's folder, or a URL with its local copy."""

from typing import Protocol, final

from calidrift_agent._registry import Pointer, Version, VersionLayout, open_version, read_pointer


class Source(Protocol):
    """Names versions, and gives them verified."""

    @property
    def model(self) -> str:
        """Name of the model."""
        ...

    def pointer(self) -> Pointer | None:
        """Which version is to serve; `None` where nothing was promoted.

        Raises:
            RegistryError: It cannot be told.
            RegistryUnreachableError: The store does not answer; another time it may.
        """
        ...

    def last_known(self) -> Pointer | None:
        """A version that can be opened although the store does not answer, or `None`."""
        ...

    def open(self, pointer: Pointer, serving: str | None, *, remember: bool = True) -> Version:
        """Give a version, every file verified; `serving` must not be taken away.

        Where `remember`, it is the last one known while the store is away.

        Raises:
            RegistryError: It is damaged, unfinished, or not to be had.
        """
        ...


@final
class FolderSource:
    """A registry's folder.

    Args:
        layout: The model in it.
    """

    __slots__ = ("_layout",)

    def __init__(self, layout: VersionLayout) -> None:
        self._layout = layout

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._layout.model

    def pointer(self) -> Pointer | None:
        """What the pointer file says."""
        return read_pointer(self._layout)

    def last_known(self) -> Pointer | None:
        """Nothing: a folder is there or is not."""
        return None

    def open(self, pointer: Pointer, serving: str | None, *, remember: bool = True) -> Version:
        """Verify the version where it is."""
        return open_version(self._layout.root.parent, self._layout.model, pointer.version)
