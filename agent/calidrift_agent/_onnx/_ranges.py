"""The ranges of an ONNX model as parts of a profile."""

import os
from collections.abc import Mapping

from calidrift_agent._onnx._fingerprint import fingerprint_of_network
from calidrift_agent._onnx._network import Network
from calidrift_agent._onnx._source import read_file
from calidrift_agent._onnx._survey import Survey, survey
from calidrift_agent._profile import ClipBound, Fingerprint, PointProfile
from calidrift_agent.errors import AttachError, ProfileError


def ranges_of_file(path: str | os.PathLike[str]) -> tuple[list[PointProfile], Fingerprint]:
    """Return the points of a QDQ model with their ranges, and its fingerprint.

    Raises:
        ConfigurationError: The extra is not installed.
        ProfileError: The file cannot be read, is no ONNX model, or has no ranges that could be
            used.
    """
    network, found = _read(path)
    if found.quantization.refused:
        tensor, why = next(iter(found.quantization.refused.items()))
        raise ProfileError(f"the activation {tensor} of {path} has no clip range: {why}")
    if not found.quantized:
        raise ProfileError(
            f"{path} has no static activation quantizer (QuantizeLinear), so it has no clip "
            "ranges; give the quantized model, or calibrate a session of this one"
        )
    points = [
        PointProfile(name=one.point.name, clip_bound=one.bound, aliases=one.point.aliases)
        for one in found.points
    ]
    return points, fingerprint_of_network(network)


def ranges_of_tensors(
    path: str | os.PathLike[str], bounds: Mapping[str, ClipBound | None]
) -> tuple[list[PointProfile], Fingerprint]:
    """Return the points of a float model with the ranges that others gave to its tensors.

    Args:
        path: The ONNX model.
        bounds: Tensor name to range, or None.

    Raises:
        ConfigurationError: The extra is not installed.
        ProfileError: The file cannot be read, is no ONNX model, or none of its points is a tensor
            with a range.
    """
    network, found = _read(path)
    points = [
        PointProfile(
            name=one.point.name,
            clip_bound=bounds.get(one.tensor),
            aliases=one.point.aliases,
        )
        for one in found.points
    ]
    if not any(point.clip_bound for point in points):
        raise ProfileError(
            f"none of the {len(points)} points of {path} is a tensor with a range; give the model "
            "that the ranges were made for"
        )
    return points, fingerprint_of_network(network)


def _read(path: str | os.PathLike[str]) -> tuple[Network, Survey]:
    try:
        network = Network(read_file(path))
        return network, survey(network)
    except AttachError as error:
        raise ProfileError(str(error)) from error
