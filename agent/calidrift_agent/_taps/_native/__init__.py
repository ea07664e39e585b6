"""The optional native tap: the same figures as torch and numpy make, bit for bit, for less time.

C files, compiled when the package is installed (see `agent/build_native.py`) and left out where
there is no compiler. Whatever it cannot read (another type, another device, memory with gaps) it
leaves to Python, tensor by tensor. ``CALIDRIFT_NO_NATIVE=1`` switches it off.
"""

from calidrift_agent._taps._native._load import NATIVE, PROTOCOL, load

__all__ = ["NATIVE", "PROTOCOL", "load"]
