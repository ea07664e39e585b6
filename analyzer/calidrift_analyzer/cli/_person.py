"""Who types: one name for the audit, for authors of mutes and marks, and for the service."""

import os
import pwd

__all__ = ["user_name"]


def user_name() -> str:
    """Give the name of the operating system's user; its number where it has no name.

    Not what the environment says (`LOGNAME`, `USER`): that differs under `su`, and anybody may set
    it.
    """
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # in a container, often
        return f"uid {uid}"
