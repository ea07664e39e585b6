"""Counting kernels, and the proof that the count can fail."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch

from calidrift_analyzer.backend import PlannedLayer, count_kernels
from calidrift_analyzer.records import LayerKind

ONE = torch.tensor([0.1, 0.2])
TWO = torch.tensor([0.3, 0.4])

CONV = "torch.ops.onednn.qconv_pointwise.tensor(x, s, z, w, {}, zp)"
BINARY = "torch.ops.onednn.qconv2d_pointwise.binary_tensor(x, s, z, w, {}, zp)"
LINEAR = "torch.ops.onednn.qlinear_pointwise.tensor(x, s, z, w, {}, zp)"
OTHER = "torch.ops.onednn.linear_pointwise(x)"


def layer(name, scales, kind=LayerKind.CONVOLUTION):
    return PlannedLayer(name, kind, f"{name}.weight", scales.numpy().tobytes(), 10, 40)


@pytest.fixture
def generated(tmp_path):
    """A module like Inductor's, over a torch whose kernels only answer."""

    def make(*lines):
        path = tmp_path / "generated.py"
        body = "".join(f"    {line}\n" for line in lines)
        path.write_text(f"x = s = z = w = zp = 0\ndef call():\n{body}    return 7\n")
        spec = importlib.util.spec_from_file_location("generated", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        overloads = SimpleNamespace(tensor=lambda *a: "y", binary_tensor=lambda *a: "y")
        kernels = SimpleNamespace(
            qconv_pointwise=overloads,
            qconv2d_pointwise=overloads,
            qlinear_pointwise=overloads,
            linear_pointwise=lambda x: "float",
        )
        module.torch = SimpleNamespace(ops=SimpleNamespace(onednn=kernels), float32="float32")
        module.one, module.two, module.other = ONE, TWO, torch.tensor([9.0, 9.0])
        return module

    return make


def count(plan, module):
    return count_kernels(plan, [module], module.call)


def test_each_kernel_is_put_down_to_its_layer(generated):
    plan = [layer("a", ONE), layer("b", TWO), layer("c", ONE, LayerKind.LINEAR)]
    module = generated(
        CONV.format("one"), f"y = {BINARY.format('two')}", LINEAR.format("one"), OTHER
    )
    torch_before = module.torch

    report = count(plan, module)

    assert [(one.name, one.planned, one.found) for one in report.layers] == [
        ("a", 1, 1),
        ("b", 1, 1),
        ("c", 1, 1),
    ]
    assert report.complete
    assert (report.planned, report.found, report.in_code, report.missing) == (3, 3, 3, ())
    assert module.torch is torch_before


@pytest.mark.parametrize(
    ("lines", "missing", "foreign"),
    [
        ([CONV.format("one")], ("b",), 0),
        ([CONV.format("one"), OTHER], ("b",), 0),
        ([CONV.format("one"), f"# {CONV.format('two')}"], ("b",), 0),
        ([CONV.format("one"), f"text = '{CONV.format('two')}'"], ("b",), 0),
        ([CONV.format("one"), f"if x: {CONV.format('two')}"], ("b",), 0),
        ([CONV.format("one"), LINEAR.format("two")], ("b",), 1),
        ([CONV.format("one"), CONV.format("one")], ("a", "b"), 0),
        ([CONV.format("one"), CONV.format("two"), CONV.format("other")], (), 1),
        ([CONV.format("one"), CONV.format("0.5")], ("b",), 1),
        ([CONV.format("one"), "torch.ops.onednn.qconv_pointwise.tensor(x)"], ("b",), 1),
        ([], ("a", "b"), 0),
    ],
    ids=[
        "one missing",
        "one in float",
        "comment",
        "text",
        "never runs",
        "other kind",
        "twice the same",
        "foreign",
        "no tensor",
        "no argument",
        "nothing",
    ],
)
def test_anything_else_than_the_plan_is_incomplete(generated, lines, missing, foreign):
    plan = [layer("a", ONE), layer("b", TWO)]

    report = count(plan, generated(*lines))

    assert not report.complete
    assert report.missing == missing
    assert report.unattributed == foreign


def test_a_kernel_that_ran_without_being_in_the_code_is_not_believed(generated):
    module = generated("f = torch.ops.onednn.qconv_pointwise", "f.tensor(x, s, z, w, one, zp)")

    report = count([layer("a", ONE)], module)

    assert (report.found, report.in_code, report.complete) == (1, 0, False)


def test_no_code_and_no_plan_are_never_complete(generated):
    assert not count_kernels([layer("a", ONE)], [], lambda: None).complete
    assert not count([], generated()).complete


def test_a_module_that_does_not_know_torch_has_no_kernels(generated):
    module = generated()
    del module.torch

    assert not count([layer("a", ONE)], module).complete


def test_a_shared_layer_needs_a_kernel_per_call(generated):
    plan = [layer("a", ONE), layer("a", ONE)]

    assert count(plan, generated(*[CONV.format("one")] * 2)).complete
    assert not count(plan, generated(CONV.format("one"))).complete


def test_layers_with_equal_scales_are_counted_together(generated):
    plan = [layer("a", ONE), layer("b", ONE)]

    short = count(plan, generated(CONV.format("one")))

    assert (short.found, short.missing, short.complete) == (1, ("b",), False)
    assert count(plan, generated(*[CONV.format("one")] * 2)).complete


def test_code_that_fails_leaves_its_module_as_it_was(generated):
    module = generated("raise ValueError('no')")
    torch_before = module.torch

    with pytest.raises(ValueError, match="no"):
        count([layer("a", ONE)], module)
    assert module.torch is torch_before
