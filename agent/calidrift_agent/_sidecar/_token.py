"""The bearer token that readers of `/metrics` have to know."""

from __future__ import annotations

import hmac
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from calidrift_agent.errors import ConfigurationError

_MOST_BYTES: Final = 64 * 1024
_SCHEME: Final = "bearer "


@final
class BearerToken:
    """A token in a file, which may be replaced while the sidecar runs (a rotated secret).

    A new content counts from the next request on; where the file is gone, empty or unreadable
    for a moment, the last token stays good.

    Args:
        path: The file; space around the token is ignored.

    Raises:
        ConfigurationError: The file cannot be read or holds no token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._known = self._read()
        except OSError as error:
            raise ConfigurationError(
                f"the token file {path} cannot be read ({error.strerror}); give a file that this "
                "user may read"
            ) from error
        if not self._known:
            raise ConfigurationError(
                f"the token file {path} holds no token; write one into it, for example "
                "`openssl rand -hex 32`"
            )

    def admits(self, header: str | None) -> bool:
        """Whether an `Authorization` header carries the token.

        The comparison takes the same time wherever the first difference is.
        """
        given = header or ""
        if not given.lower().startswith(_SCHEME):
            return False
        sent = given[len(_SCHEME) :].strip().encode("utf-8", "surrogateescape")
        return hmac.compare_digest(sent, self.current())

    def current(self) -> bytes:
        """The token as the file has it now."""
        with self._lock, suppress(OSError):
            self._known = self._read() or self._known
        return self._known

    def _read(self) -> bytes:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.read(descriptor, _MOST_BYTES).strip()
        finally:
            os.close(descriptor)
