"""One try of a hook, whichever kind it is, and what its configuration must be."""

import hmac
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, final

from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.records import DeploymentRow

__all__ = ["HookResult", "check_hook", "fields", "read_secret", "sign", "tail"]

_LEAST_CHARACTERS: Final = 16
_KEPT: Final = 4_096
"""Bytes of output that are kept: the last ones."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HookResult:
    """What one try came to.

    Attributes:
        done: Whether the other side has taken the move over.
        again: Whether trying again may help.
        sentence: In words.
        output: The end of what it wrote or answered.
    """

    done: bool
    again: bool
    sentence: str
    output: str = ""


def fields(contract: ModelContract, row: DeploymentRow) -> dict[str, str]:
    """Give what is told about a move; from the registry and the configuration alone."""
    return {
        "model": row.model,
        "version": row.version,
        "previous": row.previous or "",
        "action": row.action.value,
        "registry": row.registry,
        "registry_url": contract.registry_url or "",
        "manifest_sha256": row.manifest_sha256,
        "idempotency_key": row.key,
    }


def tail(content: bytes) -> str:
    r"""Give the end of an output as text without control characters.

    >>> tail(b"done\x1b[0m\n")
    'done[0m'
    """
    text = content[-_KEPT:].decode("utf-8", "replace").strip()
    return "".join(one for one in text if one.isprintable() or one == "\n")


def check_hook(contract: ModelContract) -> None:
    """Refuse a hook that cannot work, before anything is moved.

    Raises:
        ConfigurationError: The program is not there, or the secret cannot be used.
    """
    deploy = contract.deploy
    if deploy is None:
        return
    if deploy.secret_file is not None:
        read_secret(deploy.secret_file, contract.name)
        return
    program = deploy.command[0]
    found = contract.root / program if "/" in program else program
    if shutil.which(found) is None:
        raise ConfigurationError(
            f"the program {program!r} of [models.{contract.name}.deploy] is not there or may not "
            "be executed; correct command; a path begins at the configuration file's folder"
        )


def read_secret(path: Path, model: str) -> bytes:
    """Read the secret that signs; read anew for each try, so that it can be changed.

    Raises:
        ConfigurationError: It cannot be read, may be read by others, or is too short.
    """
    where = f"the secret file {path} of [models.{model}.deploy]"
    try:
        mode = path.stat().st_mode
        secret = path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(
            f"{where} cannot be read ({error.strerror}); correct secret_file"
        ) from error
    if mode & 0o077:
        raise ConfigurationError(
            f"{where} may be read by others (mode {mode & 0o777:04o}); allow it to its owner "
            f"alone: chmod 600 {path}"
        )
    if len(secret) < _LEAST_CHARACTERS:
        raise ConfigurationError(
            f"{where} holds less than {_LEAST_CHARACTERS} characters; make a secret: "
            "`openssl rand -hex 32`"
        )
    return secret


def sign(secret: bytes, moment: str, body: bytes) -> str:
    """Sign a body as the service itself checks signatures: over `timestamp:body`, in hex."""
    return hmac.new(secret, moment.encode() + b":" + body, sha256).hexdigest()
