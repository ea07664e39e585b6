"""Encryption at rest: Fernet (AES-128-CBC with HMAC-SHA256) of the package `cryptography`.

The keys come from the environment, in the writing and in the reading process. The first one
encrypts, all of them decrypt: to rotate, put a new key in front and remove the old one when the
last capture that it sealed is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from calidrift_agent import _environment
from calidrift_agent._environment import CALIDRIFT_CAPTURE_KEYS
from calidrift_agent.errors import CaptureError, ConfigurationError

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

SEALED_SUFFIX: Final = ".safetensors.fernet"


@final
class KeyRing:
    """The keys of this process, as the environment has them at the moment of use.

    Cost: one look at the environment (2 us); a change of it makes new cipher objects.
    """

    def __init__(self) -> None:
        self._keys: tuple[str, ...] = ()
        self._cipher: MultiFernet | None = None

    @property
    def usable(self) -> bool:
        """Whether there are keys now, and all of them can be used."""
        try:
            return self._current() is not None
        except ConfigurationError:
            return False

    def require(self) -> None:
        """Look for keys.

        Raises:
            ConfigurationError: There are none, one of them is none, or `cryptography` is missing.
        """
        if self._current() is None:
            raise ConfigurationError(
                f"captures are to be encrypted, but {CALIDRIFT_CAPTURE_KEYS} is not set; set it to "
                "one or more Fernet keys, separated by commas: the first encrypts, all decrypt"
            )

    def seal(self, blob: bytes) -> bytes:
        """Encrypt with the first key; 4/3 of the size, about 3 ms per MiB.

        The keys are those that `usable` or `require` last found: whoever changes the environment
        between the two calls must not tear a capture in half.

        Raises:
            ConfigurationError: As `require`, where nobody has asked yet.
        """
        if self._cipher is None:
            self.require()
        assert self._cipher is not None
        return self._cipher.encrypt(blob)

    def open(self, blob: bytes) -> bytes:
        """Decrypt with whatever key fits.

        Raises:
            CaptureError: There is no key, or none of them fits.
        """
        try:
            cipher = self._current()
        except ConfigurationError as error:
            raise CaptureError(f"encrypted, but {error}") from error
        if cipher is None:
            raise CaptureError(
                f"encrypted, but {CALIDRIFT_CAPTURE_KEYS} is not set; set it to the key that the "
                "writing process had"
            )
        from cryptography.fernet import InvalidToken

        try:
            return cipher.decrypt(blob)
        except InvalidToken as error:
            count = len(self._keys)
            keys = "the only key" if count == 1 else f"none of the {count} keys"
            fits = "does not fit" if count == 1 else "fits"
            raise CaptureError(
                f"encrypted, and {keys} in {CALIDRIFT_CAPTURE_KEYS} {fits}, or the file is "
                "damaged; add the key that the writing process had"
            ) from error

    def _current(self) -> MultiFernet | None:
        keys = _environment.read_capture_keys()
        if keys != self._keys or self._cipher is None:
            self._cipher = _cipher(keys) if keys else None
            self._keys = keys
        return self._cipher


def _cipher(keys: tuple[str, ...]) -> MultiFernet:
    try:
        from cryptography.fernet import Fernet, MultiFernet
    except ImportError as error:
        raise ConfigurationError(
            "captures are encrypted with the package cryptography, which is not installed here; "
            'install the extra that brings it: pip install "calidrift[crypto]"'
        ) from error
    fernets = []
    for number, key in enumerate(keys, start=1):
        try:
            fernets.append(Fernet(key))
        except ValueError as error:  # never show the key itself
            raise ConfigurationError(
                f"key {number} of {len(keys)} in {CALIDRIFT_CAPTURE_KEYS} is not a Fernet key (32 "
                "bytes as 44 characters of URL-safe base64); make one with "
                "cryptography.fernet.Fernet.generate_key()"
            ) from error
    return MultiFernet(fernets)
