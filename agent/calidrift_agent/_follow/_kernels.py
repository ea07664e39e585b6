"""How many INT8 kernels a loaded model really runs, and how many its version was validated with."""

import json
import re
from collections.abc import Callable
from typing import Any, Final

from calidrift_agent._registry import Version
from calidrift_agent.errors import RegistryError

_KERNEL: Final = re.compile(r"onednn::q(?:conv|linear)\w*_pointwise")


def planned_int8_kernels(version: Version) -> int | None:
    """Give the number of INT8 kernels that validation found complete in a version.

    Args:
        version: A verified version.

    Returns:
        The number; None where the version's report says nothing about kernels.

    Raises:
        RegistryError: The report cannot be read.
    """
    try:
        report = json.loads(version.report_path.read_bytes())
    except (OSError, ValueError) as error:
        raise RegistryError(
            f"{version.report_path} cannot be read ({error}); restore it, or go to another version "
            "with `calidrift rollback`"
        ) from error
    match report:
        case {"kernels": {"layers": [*layers]}} if layers:
            return sum(int(layer["planned"]) for layer in layers)
    return None


def count_int8_kernels(run: Callable[[], object]) -> int:
    """Count the INT8 kernels of oneDNN that one run of a model calls on this thread.

    The dispatcher is listened to while the model runs, so the figure is about what ran: not about
    code that was generated, and not about code that a cache held already.

    Args:
        run: Runs the model once, on inputs like those of a request.

    Returns:
        Calls of `onednn::qconv*_pointwise` and `onednn::qlinear*_pointwise`; layers that run
        inside a wrapper of the same kind count once.

    Raises:
        RuntimeError: Another profiler is at work on this thread.

    Cost: one run, about 20 us slower per operation.
    """
    from torch.autograd.profiler import profile

    with profile(use_kineto=False) as found:
        run()
    # One kernel may be announced under two names, one inside the other.
    return sum(
        _is_kernel(event) and not _is_kernel(event.cpu_parent) for event in found.function_events
    )


def _is_kernel(event: Any) -> bool:
    return event is not None and _KERNEL.fullmatch(event.name) is not None
