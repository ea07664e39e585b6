"""The table `[models.NAME.deploy]`: what is told of a new version besides the registry."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self, final

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["DEPLOY_WORDS", "DeployConfig", "DeploySettings"]

DEPLOY_WORDS: Final = (
    "a table with either command = ['program', 'argument', ...], or url = 'https://...' together "
    "with secret_file, and never both"
)
_SPAN = "a number of seconds above 0, at most a day"
_COMMAND = "a list of non-empty texts, the program first; no shell reads it"
_PATH = "a path; a relative one in a file starts at that file's folder"
_URL = r"^https?://[^\s/@?#]+(/[^\s#]*)?$"
_URL_WORDS = "an address that begins with http:// or https://, without a name or password in it"
_DAY: Final = 86_400.0
_Argument = Annotated[str, Field(pattern=r"^[^\x00]+$")]


@final
class DeploySettings(BaseModel):
    """A table `[models.NAME.deploy]`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    command: Annotated[list[_Argument] | None, Field(min_length=1, description=_COMMAND)] = None
    url: Annotated[str | None, Field(pattern=_URL, description=_URL_WORDS)] = None
    secret_file: Annotated[str | None, Field(min_length=1, description=_PATH)] = None
    timeout_seconds: Annotated[float, Field(gt=0, le=_DAY, description=_SPAN)] = 60.0
    give_up_seconds: Annotated[float, Field(gt=0, le=_DAY, description=_SPAN)] = 900.0

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("one of command and url")
        if (self.url is None) != (self.secret_file is None):
            raise ValueError("url and secret_file together")
        return self


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DeployConfig:
    """What is run or called after a promotion or rollback: a command, or an address.

    Attributes:
        command: Program and arguments, started without a shell; empty where `url` is called.
        url: Address to POST to; `None` where `command` is run.
        secret_file: File with the secret that signs what is posted.
        timeout_seconds: Most time of one try.
        give_up_seconds: How long after the move a try that may be repeated is repeated.
    """

    command: tuple[str, ...] = ()
    url: str | None = None
    secret_file: Path | None = None
    timeout_seconds: float = 60.0
    give_up_seconds: float = 900.0
