"""What stands in an observed module while a call is being observed: native, or else Python."""

from typing import TYPE_CHECKING

from calidrift_agent._taps._native import NATIVE

if TYPE_CHECKING or NATIVE is None:
    from calidrift_agent._taps._python_tap import Tap, arm, disarm
else:
    Tap, arm, disarm = NATIVE.Tap, NATIVE.arm, NATIVE.disarm

__all__ = ["Tap", "arm", "disarm"]
