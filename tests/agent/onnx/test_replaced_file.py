"""A file that was replaced after its session was made is not taken for the model that serves."""

import gc
import weakref

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calidrift_agent import watch as watch_model
from calidrift_agent._observe import CheckedSession
from calidrift_agent._onnx import Network
from calidrift_agent._vocabulary import CountColumn, RequestColumn, Stage
from calidrift_agent.errors import AttachError

SHADOW = RequestColumn.ERROR_FIRST + list(Stage).index(Stage.SHADOW)
REPLACED = "the session answers otherwise than the model in its file"


def scaled(model, factor):
    """The model with larger weights in its head only, and ranges that fit them."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for proto in copied.graph.initializer:
        scale = proto.name.startswith(("head.", "y_")) and proto.name.endswith("_scale")
        if scale or proto.name == "head.weight":
            value = numpy_helper.to_array(proto)
            proto.CopyFrom(numpy_helper.from_array(value * np.float32(factor), proto.name))
    return copied


def figures(watch):
    report, total = watch.report(), watch.snapshot()[1]
    rows = int(total.counts[:, CountColumn.ROWS].sum())
    return report, rows, int(total.requests[SHADOW])


@pytest.mark.parametrize("kind", ["float_model", "int8_model"])
def test_a_replaced_file_is_not_observed_and_the_reason_is_told(
    kind, request, kit, images, watch_all, tmp_path
):
    model, path = request.getfixturevalue(kind), tmp_path / "model.onnx"
    onnx.save(model, path)
    session = kit.session_of(path)
    (expected,) = session.run(None, {"x": images})
    onnx.save(scaled(model, 8), path)
    watch = watch_all(session)
    for _ in range(3):
        assert np.array_equal(session.run(None, {"x": images})[0], expected)
    report, rows, failed = figures(watch)
    assert (rows, failed, report.observed_calls, report.observed) == (0, 3, 0, ())
    assert report.points == ()
    assert any(note.startswith(f"nothing is observed: {REPLACED}") for note in report.notes)
    watch.close()
    anew = kit.session_of(path)
    watch = watch_all(anew)
    anew.run(None, {"x": images})
    report, rows, failed = figures(watch)
    assert (failed, report.observed_calls, report.observed) == (0, 1, report.points)


@pytest.mark.parametrize("kind", ["float_model", "int8_model", "integer_model"])
def test_the_file_of_the_session_is_observed(kind, request, kit, images, watch_all, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(request.getfixturevalue(kind), path)
    session = kit.session_of(path)
    watch = watch_all(session)
    for start in range(3):
        session.run(["y"], {"x": images[start : start + 4]})
    report, rows, failed = figures(watch)
    assert (failed, report.observed_calls, report.observed) == (0, 3, report.points)
    assert rows
    assert not any("nothing is observed" in note for note in report.notes)


def test_it_is_looked_into_once_and_the_file_is_let_go(
    float_model, kit, images, watch_all, tmp_path, monkeypatch
):
    path, networks, checks = tmp_path / "model.onnx", [], []
    onnx.save(float_model, path)
    check = CheckedSession._check
    monkeypatch.setattr(
        CheckedSession, "_check", lambda *given: (checks.append(1), check(*given))[1]
    )

    class Watched(Network):
        __slots__ = ("__weakref__",)

        def __init__(self, source):
            super().__init__(source)
            networks.append(weakref.ref(self))

    monkeypatch.setattr("calidrift_agent._attach._onnx.Network", Watched)
    session = kit.session_of(path)
    watch = watch_all(session)
    for _ in range(3):
        session.run(None, {"x": images})
        watch.flush()
    gc.collect()
    assert len(checks) == 1
    assert [one() for one in networks] == [None]


def test_outputs_that_cannot_be_compared_keep_nothing_from_being_observed(
    kit, images, watch_all, tmp_path
):
    node, path = onnx.helper.make_node, tmp_path / "model.onnx"
    weight = np.eye(8, dtype=np.float32)
    model = kit.model_of(
        [node("MatMul", ["x", "w"], ["h"], "fc"), node("ArgMax", ["h"], ["y"], "top", axis=1)],
        {"x": ["batch", 8]},
        ["y"],
        {"w": weight},
    )
    onnx.save(model, path)
    session = kit.session_of(path)
    watch = watch_all(session)
    for _ in range(20):
        session.run(None, {"x": images[:4, 0, 0]})
    report, rows, failed = figures(watch)
    assert (report.observed_calls, failed) == (20, 0)
    assert rows


def test_random_numbers_in_the_graph_are_no_other_model(kit, images, watch_all, tmp_path):
    node, path = onnx.helper.make_node, tmp_path / "model.onnx"
    model = kit.model_of(
        [
            node("MatMul", ["x", "w"], ["h"], "fc"),
            node("RandomNormalLike", ["h"], ["r"], "noise"),
            node("Add", ["h", "r"], ["y"], "sum"),
        ],
        {"x": ["batch", 8]},
        ["y"],
        {"w": np.eye(8, dtype=np.float32)},
    )
    onnx.save(model, path)
    session = kit.session_of(path)
    watch = watch_all(session)
    session.run(None, {"x": images[:4, 0, 0]})
    report, _, failed = figures(watch)
    assert (report.observed_calls, failed) == (1, 0)


def test_a_file_with_other_outputs_is_refused_at_once(float_model, kit, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(float_model, path)
    session = kit.session_of(path)
    other = onnx.ModelProto()
    other.CopyFrom(float_model)
    other.graph.output.append(onnx.ValueInfoProto(name="flat"))
    onnx.save(other, path)
    with pytest.raises(AttachError, match="the file was replaced since"):
        watch_model(session, name="net")
