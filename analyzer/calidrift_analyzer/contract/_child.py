"""The child's side: `python -m calidrift_analyzer.contract._child FOLDER`.

Reads `request.json`, runs the job, writes `answer.json`; progress goes to standard output, one JSON
list per line. Whatever user code prints lands on standard error.
"""

import importlib
import json
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from calidrift_analyzer import errors
from calidrift_analyzer.errors import CalidriftError

__all__ = ["main"]

_FAILED: Final = 1


def main(arguments: Sequence[str]) -> int:
    """Run the job of a request folder.

    Args:
        arguments: The folder.

    Returns:
        0 with an answer, 1 with an error in its place.
    """
    folder = Path(arguments[0])
    left = [folder]
    threading.Thread(target=_end_with_parent, args=(left,), daemon=True).start()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)

        def progress(what: str, done: int, total: int) -> None:
            channel.write(json.dumps([what, done, total]) + "\n")
            channel.flush()

        try:
            content = json.loads((folder / "request.json").read_text(encoding="utf-8"))
            left += [Path(one) for one in content["scratch"]]
            module, _, function = content["job"].partition(":")
            job = getattr(importlib.import_module(module), function)
            answer: dict[str, Any] = {"result": job(content["request"], progress)}
        except BaseException as error:
            traceback.print_exc()
            answer = {"error": _describe(error)}
        _write(folder / "answer.json", answer)
    return _FAILED if "error" in answer else 0


def _describe(error: BaseException) -> dict[str, str]:
    name = type(error).__name__
    if isinstance(error, CalidriftError):
        known = name if hasattr(errors, name) else "ContractError"
        return {"type": known, "message": str(error)}
    if isinstance(error, MemoryError):
        message = "the child process ran out of memory; use smaller batches or fewer samples"
        return {"type": "ChildError", "message": message}
    line = next(iter(str(error).splitlines()), "") or "no message"
    message = f"the child process failed by a defect ({name}: {line}); --debug shows where"
    return {"type": "ChildError", "message": message}


def _write(path: Path, answer: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(answer), encoding="utf-8")
    temporary.replace(path)


def _end_with_parent(left: Sequence[Path]) -> None:
    """The parent holds our standard input open and never writes: its end is the parent's end.

    One that was killed could not tidy up; captured requests of people may be in what it left.
    """
    while os.read(0, 1):
        pass
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
