"""Which tensors are points, by what name, and what is left out and why."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calidrift_agent._onnx import Network, survey
from calidrift_agent._onnx._source import Source
from calidrift_agent.errors import AttachError

node = helper.make_node
ONE = np.float32(1.0)


def look(model):
    return survey(Network(Source(model, None, "test")))


def names(found):
    return [one.point.name for one in found.points]


def aliases(found):
    return {one.point.name: one.point.aliases for one in found.points if one.point.aliases}


def weights(**shapes):
    return {name.replace("__", "."): np.ones(shape, np.float32) for name, shape in shapes.items()}


def test_float_points_have_the_names_of_the_eager_layers(float_model):
    found = look(float_model)
    assert names(found) == ["stem:input", "block.conv1:input", "block.conv2:input", "head:input"]
    assert aliases(found) == {"block.conv1:input": ("block.skip:input",)}
    assert not found.quantized
    assert all(one.bound is None for one in found.points)
    assert not found.skipped


def test_quantized_points_are_what_quantizers_read(int8_model):
    found = look(int8_model)
    assert found.quantized
    assert [(one.point.name, one.tensor, one.folded) for one in found.points] == [
        ("stem:input", "x", False),
        ("block.conv1:input", "r0", True),
        ("block.conv2:input", "r1", True),
        ("node_add:input", "c2", False),
        ("node_add#2:input", "c3", False),
        ("node_pool:input", "r2", True),
        ("node_flatten:input", "pooled", False),
        ("head:input", "flat", False),
        ("head:output", "y_QuantizeLinear_Input", False),
    ]
    assert aliases(found) == {"block.conv1:input": ("block.skip:input",)}
    scales = {one.name: numpy_helper.to_array(one) for one in int8_model.graph.initializer}
    for one in found.points:
        base = one.tensor.removesuffix("_QuantizeLinear_Input")
        base = "pooled" if base == "flat" else base  # a reshape keeps its input's range
        bound = one.bound
        assert (bound.qmin, bound.qmax, bound.dtype) == (-128, 127, "int8")
        assert bound.scale == float(scales[f"{base}_scale"])
        assert bound.zero_point == int(scales[f"{base}_zero_point"])


def test_weights_that_are_quantized_in_the_graph_are_no_points(kit):
    """As training with simulated quantization exports them."""
    nodes = [
        node("QuantizeLinear", ["fc.weight", "s", "z"], ["wq"]),
        node("DequantizeLinear", ["wq", "s", "z"], ["w"]),
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        node("MatMul", ["xd", "w"], ["y"]),
    ]
    values = {**weights(fc__weight=(4, 3)), "s": ONE, "z": np.uint8(128)}
    found = look(kit.model_of(nodes, {"x": ["b", 4]}, ["y"], values))
    assert names(found) == ["fc:input"]


def test_names_come_from_node_paths_where_weights_have_none(kit):
    nodes = [
        node("Conv", ["x", "onnx::Conv_39"], ["a"], "/stem/Conv"),
        node("Flatten", ["a"], ["f"], "/Flatten"),
        node("MatMul", ["f", "onnx::MatMul_40"], ["b"], "/layer.0/query/MatMul"),
        node("MatMul", ["b", "onnx::MatMul_41"], ["c"], "/layer.0/query/MatMul_1"),
        node("MatMul", ["c", "onnx::MatMul_41"], ["y"], "MatMul_7"),
    ]
    values = {
        "onnx::Conv_39": np.ones((2, 1, 1, 1), np.float32),
        "onnx::MatMul_40": np.ones((8, 3), np.float32),
        "onnx::MatMul_41": np.ones((3, 3), np.float32),
    }
    found = look(kit.model_of(nodes, {"x": ["b", 1, 2, 2]}, ["y"], values))
    assert names(found) == [
        "stem:input",
        "layer.0.query:input",
        "layer.0.query#2:input",
        "MatMul_7:input",
    ]


def noted(made, scopes, classes):
    for key, value in (("name_scopes", scopes), ("class_hierarchy", classes)):
        made.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)
    return made


def test_names_come_from_the_exporters_notes(kit):
    linear = "torch.nn.modules.linear.Linear"
    nodes = [
        noted(
            node("MatMul", ["x", "val_3"], ["a"], "node_MatMul_1"),
            "['', 'encoder', 'encoder.fc', 'linear']",
            f"['m.Net', 'm.Encoder', '{linear}', 'aten.linear.default']",
        ),
        noted(
            node("MatMul", ["a", "a"], ["b"], "node_matmul"),
            "['', 'encoder', 'matmul']",
            "['m.Net', 'm.Encoder', 'aten.matmul.default']",
        ),
        noted(node("MatMul", ["b", "val_3"], ["y"], "named"), "[broken", "['x']"),
    ]
    values = {"val_3": np.ones((4, 4), np.float32)}
    found = look(kit.model_of(nodes, {"x": [4, 4]}, ["y"], values))
    assert names(found) == ["encoder.fc:input", "encoder.matmul:input", "named:input"]
    assert aliases(found) == {"encoder.matmul:input": ("encoder.matmul#2:input",)}


def test_weights_on_the_left_transposed_or_from_a_constant_node(kit):
    held = numpy_helper.from_array(np.ones((4, 4), np.float32))
    nodes = [
        node("Transpose", ["fc.weight"], ["wt"]),
        node("MatMul", ["x", "wt"], ["a"]),
        node("MatMul", ["left.weight", "a"], ["b"]),
        node("Constant", [], ["w"], value=held),
        node("MatMul", ["b", "w"], ["y"]),
    ]
    values = weights(fc__weight=(4, 4), left__weight=(4, 4))
    found = look(kit.model_of(nodes, {"x": [4, 4]}, ["y"], values))
    assert names(found) == ["fc:input", "left:input", "matmul_y:input"]


def test_embeddings_are_observed_at_their_outputs(kit):
    nodes = [
        node("Gather", ["words.weight", "ids"], ["e"]),
        node("Gather", ["e", "first"], ["f"], axis=1),  # a slice of activations, no table
        node("Gemm", ["f", "head.weight"], ["y"]),
    ]
    values = {**weights(words__weight=(9, 4), head__weight=(4, 2)), "first": np.int64(0)}
    model = kit.model_of(
        nodes, {"ids": ["b", "t"]}, ["y"], values, types={"ids": TensorProto.INT64}
    )
    found = look(model)
    assert names(found) == ["words:output", "head:input"]
    assert found.points[0].tensor == "e"


def test_dynamic_quantizers_read_points_without_a_range(kit):
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "fc.weight_quantized", "z"], ["i"]),
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["f", "s"], ["y"]),
    ]
    values = {"fc.weight_quantized": np.ones((4, 3), np.uint8)}
    found = look(kit.model_of(nodes, {"x": ["b", 4]}, ["y"], values))
    assert [(one.point.name, one.tensor, one.bound) for one in found.points] == [
        ("fc:input", "x", None)
    ]


@pytest.mark.parametrize(
    ("zero", "expected"),
    [
        (np.uint8(3), ("uint8", 0, 255, 3)),
        (np.int8(-5), ("int8", -128, 127, -5)),
        (np.uint16(7), ("uint16", 0, 65535, 7)),
        (np.int16(-7), ("int16", -32768, 32767, -7)),
        (None, ("uint8", 0, 255, 0)),
    ],
)
def test_codes_come_from_the_zero_points_type(kit, zero, expected):
    nodes = [
        node("QuantizeLinear", ["x", "s", *(["z"] if zero is not None else [])], ["q"]),
        node("DequantizeLinear", ["q", "s", *(["z"] if zero is not None else [])], ["y"]),
    ]
    values = {"s": np.array([0.5], np.float32)}
    if zero is not None:
        values["z"] = np.array([zero])
    bound = look(kit.model_of(nodes, {"x": ["b", 4]}, ["y"], values, opset=21)).points[0].bound
    assert (bound.dtype, bound.qmin, bound.qmax, bound.zero_point) == expected
    assert bound.scale == 0.5


@pytest.mark.parametrize(("kind", "name"), [("UINT4", "uint4"), ("INT4", "int4")])
def test_codes_of_four_bits_and_types_that_the_node_names(kit, kind, name):
    nodes = [
        node("QuantizeLinear", ["x", "s"], ["q"], output_dtype=getattr(TensorProto, kind)),
        node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    bound = look(kit.model_of(nodes, {"x": [4]}, ["y"], {"s": ONE}, opset=21)).points[0].bound
    assert (bound.dtype, bound.qmax - bound.qmin) == (name, 15)


def test_a_zero_point_from_a_constant_node(kit):
    nodes = [
        node("Constant", [], ["z"], value=numpy_helper.from_array(np.int8(4))),
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    bound = look(kit.model_of(nodes, {"x": [4]}, ["y"], {"s": ONE})).points[0].bound
    assert (bound.dtype, bound.zero_point) == ("int8", 4)


def pair(source, target, scale="s", zero="z"):
    return [
        node("QuantizeLinear", [source, scale, zero], [f"{target}_q"]),
        node("DequantizeLinear", [f"{target}_q", scale, zero], [target]),
    ]


def test_ranges_that_cannot_be_used_are_reported(kit):
    nodes = [
        *pair("x", "a", "per_channel", "zeros"),
        *pair("a", "b"),
        *pair("b", "c", zero="float8"),
        node("Identity", ["c"], ["y"]),
    ]
    model = kit.model_of(
        nodes,
        {"x": ["b", 4]},
        ["y"],
        {
            "per_channel": np.ones(4, np.float32),
            "zeros": np.zeros(4, np.uint8),
            "s": ONE,
            "z": np.uint8(0),
        },
        opset=21,
    )
    model.graph.initializer.append(
        helper.make_tensor("float8", TensorProto.FLOAT8E4M3FN, [], [0.0])
    )
    found = look(model)
    assert [one.tensor for one in found.points] == ["a"]
    assert "per channel or block" in found.skipped["x"]
    assert "ONNX type 17" in found.skipped["b"]


def test_numbers_that_no_quantizer_has_are_refused(kit):
    model = kit.model_of(
        pair("x", "y"), {"x": [4]}, ["y"], {"s": np.float32(0.0), "z": np.uint8(0)}
    )
    with pytest.raises(AttachError, match=r"unusable numbers .*scale 0.0"):
        look(model)


def test_a_quantizer_with_a_computed_scale_is_no_static_one(kit):
    nodes = [
        node("ReduceMax", ["x"], ["s"], keepdims=0),
        *pair("x", "d"),
        node("MatMul", ["d", "fc.weight"], ["y"]),
    ]
    values = {**weights(fc__weight=(4, 4)), "z": np.uint8(0)}
    found = look(kit.model_of(nodes, {"x": [4, 4]}, ["y"], values))
    assert not found.quantized
    assert names(found) == ["fc:input"]


@pytest.mark.parametrize(
    ("operation", "zero", "folded"),
    [("Conv", 0, True), ("Conv", 5, False), ("Abs", 0, False), ("Add", 0, True)],
)
def test_a_quantizer_behind_a_sum_whose_lowest_code_is_zero_stands_for_a_relu(
    kit, operation, zero, folded
):
    operands = {"Conv": ["x", "c.weight"], "Add": ["x", "x"], "Abs": ["x"]}[operation]
    nodes = [node(operation, operands, ["a"]), *pair("a", "y")]
    values = {**weights(c__weight=(1, 1, 1, 1)), "s": ONE, "z": np.uint8(zero)}
    found = look(kit.model_of(nodes, {"x": [1, 1, 2, 2]}, ["y"], values))
    assert [one.folded for one in found.points] == [folded]


def test_a_quantizer_of_an_input_never_stands_for_a_relu(kit):
    """Images from 0 to 1: values below 0 are really cut off."""
    found = look(kit.model_of(pair("x", "y"), {"x": [4]}, ["y"], {"s": ONE, "z": np.uint8(0)}))
    assert [one.folded for one in found.points] == [False]


def test_codes_may_be_moved_between_quantizer_and_dequantizer(kit):
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("Transpose", ["q"], ["t"]),
        node("DequantizeLinear", ["t", "s", "z"], ["d"]),
        node("MatMul", ["d", "fc.weight"], ["y"]),
    ]
    values = {**weights(fc__weight=(4, 4)), "s": ONE, "z": np.uint8(0)}
    assert names(look(kit.model_of(nodes, {"x": [4, 4]}, ["y"], values))) == ["fc:input"]


def test_what_is_computed_from_integers_is_reported(integer_model):
    found = look(integer_model)
    assert names(found) == ["stem:input"]
    assert set(found.quantization.integers.values()) >= {"QLinearConv", "QLinearAdd"}
    assert all("quantize in the QDQ format" in why for why in found.skipped.values())


def test_joining_codes_of_constants_is_integer_arithmetic(kit):
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("Concat", ["q", "codes"], ["j"], axis=0),
        node("DequantizeLinear", ["j", "s", "z"], ["d"]),
        *pair("d", "y"),
    ]
    values = {"codes": np.zeros((1, 4), np.uint8), "s": ONE, "z": np.uint8(0)}
    found = look(kit.model_of(nodes, {"x": [1, 4]}, ["y"], values))
    assert [one.tensor for one in found.points] == ["x"]
    assert any("from integers by Concat" in why for why in found.skipped.values())


CHANCE = [
    [node("RandomNormalLike", ["x"], ["noise"])],
    [node("RandomNormal", [], ["noise"], shape=[4, 4])],
    [
        node("Constant", [], ["on"], value=numpy_helper.from_array(np.bool_(True))),
        node("Dropout", ["x", "rate", "on"], ["noise"]),
    ],
    [node("Dropout", ["x", "rate", "train"], ["noise"])],
]


@pytest.mark.parametrize("made", CHANCE, ids=["like", "free", "training", "by input"])
def test_what_depends_on_chance_is_not_replayed(kit, made):
    nodes = [
        node("MatMul", ["x", "one.weight"], ["a"]),
        *made,
        node("Add", ["a", "noise"], ["b"]),
        node("MatMul", ["b", "two.weight"], ["y"]),
    ]
    values = {**weights(one__weight=(4, 4), two__weight=(4, 4)), "rate": np.float32(0.5)}
    inputs = {"x": [4, 4], **({"train": []} if "train" in made[-1].input else {})}
    model = kit.model_of(nodes, inputs, ["y"], values, types={"train": TensorProto.BOOL})
    found = look(model)
    assert names(found) == ["one:input"]
    assert "random numbers" in found.skipped["two:input"]


@pytest.mark.parametrize("switch", [None, "", "off"])
def test_dropout_that_is_switched_off_is_no_chance(kit, switch):
    given = ["x"] if switch is None else ["x", "rate", switch]
    nodes = [node("Dropout", given, ["a"]), node("MatMul", ["a", "fc.weight"], ["y"])]
    values = {**weights(fc__weight=(4, 4)), "rate": np.float32(0.5), "off": np.bool_(False)}
    assert names(look(kit.model_of(nodes, {"x": [4, 4]}, ["y"], values))) == ["fc:input"]


def test_the_hosts_own_operators_and_inputs_that_cannot_be_copied(kit):
    nodes = [
        node("MatMul", ["x", "one.weight"], ["a"]),
        node("Magic", ["a"], ["b"], domain="acme"),
        node("MatMul", ["b", "two.weight"], ["c"]),
        node("StringNormalizer", ["text"], ["t"]),
        node("Shape", ["t"], ["size"]),
        node("Cast", ["size"], ["f"], to=TensorProto.FLOAT),
        node("MatMul", ["f", "three.weight"], ["y"]),
    ]
    values = weights(one__weight=(4, 4), two__weight=(4, 4), three__weight=(1, 4))
    model = kit.model_of(
        nodes, {"x": [4, 4], "text": ["n"]}, ["c", "y"], values, types={"text": TensorProto.STRING}
    )
    found = look(model)
    assert names(found) == ["one:input"]
    assert "acme.Magic" in found.skipped["two:input"]
    assert "the input text, whose type cannot be copied" in found.skipped["three:input"]


def branching(kit, *inner):
    body = helper.make_graph(
        list(inner) or [node("MatMul", ["a", "inner.weight"], ["o"])],
        "body",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [node("Identity", ["a"], ["o2"])],
        "other",
        [],
        [helper.make_tensor_value_info("o2", TensorProto.FLOAT, None)],
    )
    nodes = [
        node("MatMul", ["x", "one.weight"], ["a"]),
        node("If", ["flag"], ["b"], "choice", then_branch=body, else_branch=other),
        node("MatMul", ["b", "two.weight"], ["y"]),
    ]
    values = weights(one__weight=(4, 4), two__weight=(4, 4), inner__weight=(4, 4))
    return kit.model_of(
        nodes, {"x": [4, 4], "flag": []}, ["y"], values, types={"flag": TensorProto.BOOL}
    )


def test_layers_in_nested_graphs_are_reported(kit):
    found = look(branching(kit))
    assert names(found) == ["one:input", "two:input"]
    assert "1 of its layers run inside a nested graph (If)" in found.skipped["choice"]


def test_chance_in_a_nested_graph(kit):
    found = look(branching(kit, node("RandomNormalLike", ["a"], ["o"])))
    assert names(found) == ["one:input"]
    assert "random numbers (RandomNormalLike)" in found.skipped["two:input"]


def test_model_local_functions_are_looked_into(kit, tmp_path):
    from calidrift_agent._onnx import read_file

    body = [node("MatMul", ["v", "w"], ["u"])]
    function = helper.make_function(
        "local", "Layer", ["v", "w"], ["u"], body, [helper.make_opsetid("", 18)]
    )
    model = kit.model_of(
        [node("Layer", ["x", "fc.weight"], ["y"], domain="local")],
        {"x": [4, 4]},
        ["y"],
        weights(fc__weight=(4, 4)),
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    onnx.save(model, tmp_path / "m.onnx")
    assert names(survey(Network(read_file(tmp_path / "m.onnx")))) == ["fc:input"]
