"""What torch's two exporters really write: the names and values of the eager model."""

import warnings

import numpy as np
import onnxruntime
import pytest
import torch

from calidrift_agent import calibrate

EXPORTERS = {
    "dynamo": {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("b", min=1, max=64)},)},
    "torchscript": {"dynamo": False, "dynamic_axes": {"x": {0: "b"}}},
}


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_points_are_those_of_the_eager_model(exporter, tiny_cnn, images, tmp_path):
    """With batch normalizations, which exporters fold into the convolutions before them."""
    path = tmp_path / "m.onnx"
    example = torch.from_numpy(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both exporters use deprecated parts of torch
        torch.onnx.export(
            tiny_cnn, (example,), path, input_names=["x"], verbose=False, **EXPORTERS[exporter]
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    eager = calibrate(tiny_cnn, [example])
    found = calibrate(session, [{"x": images}])
    assert list(found.points) == [
        "stem:input",
        "block.conv1:input",
        "block.conv2:input",
        "head:input",
    ]
    for name, point in found.points.items():
        expected = eager.points[name]
        assert np.allclose(point.observed_bound.top, expected.observed_bound.top, rtol=1e-4)
        assert point.sketch.count == expected.sketch.count
    assert found.points["block.conv1:input"].aliases == ("block.skip:input",)
