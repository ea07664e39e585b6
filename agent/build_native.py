"""Compiles the native tap while the package is being built or installed; optional throughout.

Without a compiler, without the headers of Python, on an interpreter without the stable ABI, or
with ``CALIDRIFT_NO_NATIVE=1``, nothing is built and the package is a pure one: then torch and
numpy do the same work. By hand, in a checkout: ``python agent/build_native.py``.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER: Final = Path(__file__).parent / "calidrift_agent" / "_taps" / "_native"
NAME: Final = "_tap.abi3.so"
FLAGS: Final = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off")
"""No contraction of products and sums: the figures are those of numpy, to the last bit."""
_SECONDS: Final = 120
_NO: Final = frozenset({"", "0", "false", "no", "off"})


def build(
    folder: Path = FOLDER, *, into: Path | None = None, variables: Mapping[str, str] = os.environ
) -> Path | None:
    """Compile the C files of a folder into one shared object.

    Args:
        folder: Where they are.
        into: Where it goes; by default beside them.
        variables: The environment, for ``CALIDRIFT_NO_NATIVE``, ``CC`` and the search path.

    Returns:
        Its path; None where it could not be built or should not be. An older one is removed then.
    """
    target = (into or folder) / NAME
    fresh = target.with_suffix(".new")
    compiler = find_compiler(variables)
    built = False
    if compiler is not None:
        sources = sorted(str(path) for path in folder.glob("*.c"))
        include = sysconfig.get_path("include")
        command = [compiler, *FLAGS, f"-I{include}", *sources, "-o", str(fresh), "-lm"]
        try:
            ended = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
            built = ended.returncode == 0
        except (OSError, subprocess.SubprocessError):
            built = False
    if built:
        fresh.replace(target)
        return target
    fresh.unlink(missing_ok=True)
    target.unlink(missing_ok=True)
    return None


def find_compiler(variables: Mapping[str, str] = os.environ) -> str | None:
    """Return the C compiler to use; None where there is none, or where nothing is to be built."""
    if variables.get("CALIDRIFT_NO_NATIVE", "").strip().lower() not in _NO:
        return None
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    if not sys.platform.startswith("linux") or free_threaded:
        return None
    given = variables.get("CC", "").split()
    names = given[:1] or ["cc", "gcc", "clang"]
    found = (shutil.which(name, path=variables.get("PATH")) for name in names)
    return next((path for path in found if path is not None), None)


class NativeTapHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the shared object to a wheel, also to an editable one."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build it, and say that the wheel is for this platform; see hatchling."""
        del version
        if self.target_name != "wheel":
            return
        built = build(Path(self.root) / FOLDER.relative_to(Path(__file__).parents[1]))
        if built is None:
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform}"
        build_data["artifacts"].append(f"/{built.relative_to(self.root).as_posix()}")


if __name__ == "__main__":
    sys.exit(None if build() is not None else "the native tap was not built; see this file")
