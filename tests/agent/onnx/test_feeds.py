"""From the arguments of `session.run` to tensors, without copying more than must be."""

import numpy as np
import onnxruntime
import pytest
import torch

from calidrift_agent._onnx import FeedReader

READER = FeedReader({"x": "tensor(float)", "ids": "tensor(int64)"}, frozenset({"x"}))
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def read(value, **others):
    found = READER.inputs((None, {"x": value, **others}), {})
    return None if found is None else found[1]["x"]


def test_arrays_are_looked_at_in_place():
    tensor = read(X)
    assert tensor.data_ptr() == X.ctypes.data
    assert torch.equal(tensor, torch.from_numpy(X))


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((["y"], {"x": X}), {}), ((None,), {"input_feed": {"x": X}}), ((), {"input_feed": {"x": X}})],
)
def test_however_run_was_called(args, kwargs):
    args, found = READER.inputs(args, kwargs)
    assert args == ()
    assert list(found) == ["x"]


def frozen():
    array = X.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (frozen(), X),
        (X[::-1, ::-1], [[5, 4, 3], [2, 1, 0]]),
        (X.astype(">f4"), X),
        (X.tolist(), X),
        (onnxruntime.OrtValue.ortvalue_from_numpy(X), X),
    ],
    ids=["read-only", "backwards", "big-endian", "list", "OrtValue"],
)
def test_what_torch_cannot_look_at_is_copied(value, expected):
    assert np.array_equal(read(value).numpy(), expected)


def test_a_single_number():
    assert read(3).shape == ()
    assert read(np.float32(3)).shape == ()


class OnDevice:
    def device_name(self):
        return "cuda"

    def numpy(self):
        raise AssertionError("a request must not wait for a device")


@pytest.mark.parametrize(
    "value",
    [None, "text", OnDevice(), X.astype(np.float64), object()],
    ids=["none", "text", "device", "float64", "object"],
)
def test_what_cannot_be_replayed_is_passed_over(value):
    assert read(value) is None


def test_a_constant_of_the_model_that_a_request_replaces():
    """An initializer that is an input too: the second session would compute with the default."""
    assert read(X, ids=np.zeros(2, np.int64)) is not None
    assert read(X, scale=np.float32(2)) is None


@pytest.mark.parametrize("args", [(), (None,), (None, None), (None, [X]), (None, {})])
def test_calls_that_run_itself_refuses(args):
    assert READER.inputs(args, {}) is None


def test_outputs_are_copied_and_text_is_left_out():
    outputs = [X.copy(), np.array(["a"]), [1], np.zeros(2, bool)]
    copied = READER.output(outputs)
    outputs[0][:] = 9
    assert torch.equal(copied[0], torch.from_numpy(X))
    assert [one is None for one in copied] == [False, True, True, False]
    assert READER.output("else") == "else"
