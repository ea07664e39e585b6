"""Where a model comes from, its fingerprint, and the ranges that a profile takes from it."""

import sys

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from calidrift_agent import CalibrationProfile
from calidrift_agent._onnx import (
    Network,
    fingerprint_of_network,
    is_session,
    read_file,
    read_session,
)
from calidrift_agent._onnx._source import Source
from calidrift_agent._vocabulary import Instrument
from calidrift_agent.errors import AttachError, ConfigurationError, ProfileError

node = helper.make_node


def fingerprint(model):
    found = fingerprint_of_network(Network(Source(model, None, "test")), data="d")
    assert found.data == "d"
    assert {"calidrift", "onnx", "onnxruntime"} <= set(found.versions)
    return found


def changed(model, change):
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    change(copied.graph)
    return copied


def scale(graph, name, factor):
    proto = next(one for one in graph.initializer if one.name == name)
    proto.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(proto) * np.float32(factor), name))


def test_names_and_notes_do_not_count(float_model):
    def rename(graph):
        for number, one in enumerate(graph.node):
            one.name, one.doc_string = f"n{number}", "note"
            one.metadata_props.add(key="a", value="b")

    one = fingerprint(float_model)
    assert one.differences(fingerprint(changed(float_model, rename))) == ()


def test_weights_ranges_and_operators_count_apart(int8_model):
    one = fingerprint(int8_model)
    weights = fingerprint(changed(int8_model, lambda g: scale(g, "head.weight_scale", 2)))
    ranges = fingerprint(changed(int8_model, lambda g: scale(g, "r0_scale", 2)))
    graph = fingerprint(changed(int8_model, lambda g: g.node.add(op_type="Relu", output=["z"])))
    assert one.differences(weights) == ("weights",)
    assert one.differences(ranges) == ("graph",)
    assert one.differences(graph) == ("graph",)


def test_weights_in_a_file_of_their_own_are_the_same_weights(float_model, tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(
        changed(float_model, lambda _: None),
        path,
        save_as_external_data=True,
        location="w",
        size_threshold=0,
    )
    there = fingerprint_of_network(Network(read_file(path)), data="d")
    assert fingerprint(float_model) == there


def test_a_session_knows_its_model(kit, float_model, tmp_path):
    onnx.save(float_model, tmp_path / "m.onnx")
    for session in (kit.session_of(float_model), kit.session_of(tmp_path / "m.onnx")):
        assert is_session(session)
        assert read_session(session).model == float_model


def test_a_session_that_does_not_say_its_model(float_session):
    float_session._model_bytes = None
    with pytest.raises(AttachError, match="does not say which model it was made from"):
        read_session(float_session)


def test_files_that_are_no_models(tmp_path):
    for name, content in (("text", b"hello, this is no model"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AttachError, match="is no ONNX model"):
            read_file(tmp_path / name)
    with pytest.raises(AttachError, match="cannot be read"):
        read_file(tmp_path / "nowhere.onnx")
    with pytest.raises(ProfileError, match="cannot be read"):
        CalibrationProfile.from_onnx(tmp_path / "nowhere.onnx")


def test_ranges_of_a_file(int8_model, tmp_path):
    onnx.save(int8_model, tmp_path / "m.onnx")
    profile = CalibrationProfile.from_onnx(tmp_path / "m.onnx")
    assert profile.units == 0
    assert profile.instrument is Instrument.RANGE
    assert profile.unobserved == tuple(profile.points)
    assert profile.fingerprint.weights == fingerprint(int8_model).weights
    point = profile.points["block.conv1:input"]
    assert point.aliases == ("block.skip:input",)
    scales = {one.name: numpy_helper.to_array(one) for one in int8_model.graph.initializer}
    assert point.clip_bound.lo == 0.0
    assert point.clip_bound.hi == 255 * float(scales["r0_scale"])
    assert CalibrationProfile.from_json(profile.to_json()) == profile


def test_models_without_a_range_per_tensor_are_refused(float_model, kit, tmp_path):
    onnx.save(float_model, tmp_path / "float.onnx")
    with pytest.raises(ProfileError, match="no static activation quantizer"):
        CalibrationProfile.from_onnx(tmp_path / "float.onnx")
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    values = {"s": np.ones(4, np.float32), "z": np.zeros(4, np.uint8)}
    onnx.save(kit.model_of(nodes, {"x": ["b", 4]}, ["y"], values), tmp_path / "channels.onnx")
    with pytest.raises(ProfileError, match=r"the activation x .* a scale per channel or block"):
        CalibrationProfile.from_onnx(tmp_path / "channels.onnx")


def test_a_tensorrt_cache_for_the_points_of_a_model(float_model, tmp_path):
    onnx.save(float_model, tmp_path / "m.onnx")
    lines = ["TRT-8501-EntropyCalibration2", "x: 3c010a14", "r0: 3d010a14", "r2: 3c010a14", ""]
    (tmp_path / "cache").write_text("\n".join(lines))
    profile = CalibrationProfile.from_tensorrt_cache(tmp_path / "cache", onnx=tmp_path / "m.onnx")
    bounds = {name: one.clip_bound for name, one in profile.points.items()}
    assert [name for name, bound in bounds.items() if bound] == ["stem:input", "block.conv1:input"]
    assert bounds["block.conv1:input"].hi == pytest.approx(127 * 0.0315038, rel=1e-5)
    assert profile.fingerprint.weights == fingerprint(float_model).weights
    (tmp_path / "cache").write_text("\n".join([lines[0], "(Unnamed ITensor* 9): 3c010a14"]))
    with pytest.raises(ProfileError, match="none of the 4 points"):
        CalibrationProfile.from_tensorrt_cache(tmp_path / "cache", onnx=tmp_path / "m.onnx")


@pytest.mark.parametrize("package", ["onnx"])
def test_a_missing_package_is_named_with_its_extra(package, monkeypatch, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=r'pip install "calidrift\[onnx\]"'):
        CalibrationProfile.from_onnx(tmp_path / "m.onnx")


class Lookalike:
    __module__ = "onnxruntime.somewhere"


def test_what_is_no_session():
    assert not is_session(Lookalike())
    assert not is_session(np.zeros(3))
