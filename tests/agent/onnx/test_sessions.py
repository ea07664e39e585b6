"""Watched sessions: outputs as before, both instruments, and calls that cannot be replayed."""

import subprocess
import sys
import threading

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from calidrift_agent import CalibrationProfile, CaptureOptions, WatchOptions, calibrate, watch
from calidrift_agent._capture import read_capture
from calidrift_agent._vocabulary import (
    CountColumn,
    DropReason,
    Instrument,
    RequestColumn,
    Stage,
    Strategy,
    ValueColumn,
)
from calidrift_agent.errors import AttachError, ConfigurationError, ProfileMismatchError

node = helper.make_node
CLIPS = [CountColumn.CLIP_ELEMENTS, CountColumn.CLIP_LOW, CountColumn.CLIP_HIGH]
EXTREMES = [ValueColumn.LOWEST, ValueColumn.HIGHEST]
Refusal = onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument


def errors(total):
    return total.requests[RequestColumn.ERROR_FIRST : RequestColumn.ERROR_FIRST + len(Stage)].sum()


def drops(total, reason):
    return int(total.requests[RequestColumn.DROP_FIRST + list(DropReason).index(reason)])


def rows_seen(watch):
    return set(watch.snapshot()[1].counts[:, CountColumn.ROWS].tolist())


@pytest.mark.parametrize("kind", ["float_model", "int8_model", "integer_model"])
def test_outputs_are_the_hosts_own_bit_for_bit(kind, request, kit, images, watch_all):
    session = kit.session_of(request.getfixturevalue(kind))
    expected = session.run(None, {"x": images})
    watch = watch_all(session)
    for _ in range(3):
        (output,) = session.run(None, {"x": images})
        assert np.array_equal(output, expected[0])
    report = watch.report()
    assert report.strategy is Strategy.BESIDE
    assert report.instrument is Instrument.RANGE
    assert report.observed == report.points
    assert report.observed_calls == 3
    assert any("only session.run is observed" in note for note in report.notes)
    assert errors(watch.snapshot()[1]) == 0


def test_maxima_are_those_of_the_eager_network(float_session, images, watch_all, eager_maxima):
    watch = watch_all(float_session)
    batch = np.repeat(images[5:6], 8, axis=0)  # any row is this row
    float_session.run(None, {"x": batch})
    expected = eager_maxima(images[5:6])
    meta, total = watch.snapshot()
    for row, point in enumerate(meta.points):
        assert total.values[row, EXTREMES] == pytest.approx(expected[point.name], rel=1e-5)
        assert total.counts[row, CountColumn.ROWS] == 1
    assert np.array_equal(total.cells.sum(axis=1), total.counts[:, CountColumn.ELEMENTS])


def test_the_range_instrument_sees_the_eager_network_behind_clipping(
    int8_session, images, watch_all, eager_maxima
):
    """Eight times the calibrated images: the served graph cannot show how large they become."""
    watch = watch_all(int8_session)
    image = images[5:6] * 8
    int8_session.run(None, {"x": image})
    expected = eager_maxima(image)
    meta, total = watch.snapshot()
    beyond = 0
    for row, point in enumerate(meta.points):
        if point.name in expected:
            low, high = total.values[row, EXTREMES]
            assert high == pytest.approx(expected[point.name][1], rel=0.02)  # weights are rounded
            assert low == pytest.approx(expected[point.name][0], abs=0.02 * high)
            beyond += high > 2 * point.clip_hi
    assert beyond >= 3


def test_the_clipped_fraction_is_recovered(int8_model, int8_session, images, watch_all, kit):
    """Of the served graph: counted on every element, against the graph as the file says."""
    watch = watch_all(int8_session)
    shown = 3 * images[:1]
    int8_session.run(None, {"x": shown})
    tensors = ["x", "r0", "r1", "c2", "c3", "r2", "pooled", "flat", "y_QuantizeLinear_Input"]
    served = kit.values_of(int8_model, tensors, {"x": shown})
    meta, total = watch.snapshot()
    seen = 0
    for row, (point, name) in enumerate(zip(meta.points, tensors, strict=True)):
        value, scale = served[name], (point.clip_hi - point.clip_lo) / 255
        high = (value > point.clip_hi + scale / 2).sum()
        # Behind a folded ReLU the lowest code is what the ReLU makes of everything negative.
        low = 0 if name in ("r0", "r1", "r2") else (value < point.clip_lo - scale / 2).sum()
        elements, found_low, found_high = total.counts[row, CLIPS].tolist()
        assert elements == value.size
        assert found_low / elements == pytest.approx(low / elements, abs=0.01)
        assert found_high / elements == pytest.approx(high / elements, abs=0.01)
        seen += high > 0.01 * elements
    assert seen >= 3


def test_a_known_share_of_an_input_is_clipped(kit, tmp_path, watch_all):
    """Uniform from -1 to 1 at calibration, from -2 to 2 in production: half of it is cut off."""
    nodes = [node("MatMul", ["x", "fc.weight"], ["y"])]
    values = {"fc.weight": np.eye(1000, dtype=np.float32)[:, :4]}
    model = kit.model_of(nodes, {"x": ["b", 1000]}, ["y"], values)
    calibrated = np.linspace(-1, 1, 1000, dtype=np.float32)[None]
    session = kit.session_of(kit.quantized(model, [{"x": calibrated}], tmp_path))
    watch = watch_all(session)
    rng = np.random.default_rng(7)
    for _ in range(20):
        session.run(None, {"x": rng.uniform(-2, 2, (3, 1000)).astype(np.float32)})
    _, total = watch.snapshot()
    elements, low, high = total.counts[0, CLIPS].tolist()
    assert elements == 20_000
    assert (low + high) / elements == pytest.approx(0.5, abs=0.01)


def test_the_session_is_as_it_was_after_close(float_session, images):
    before = dict(float_session.__dict__)
    one = watch(float_session, name="net", sample_rate=1.0)
    assert float_session.run is not before.get("run")
    float_session.run(None, {"x": images})
    with pytest.raises(AttachError, match="watched already"):
        watch(float_session, name="again")
    one.close()
    assert float_session.__dict__ == before
    assert float_session.run.__func__ is onnxruntime.InferenceSession.run


def test_a_run_of_the_instance_is_put_back(float_session, images, watch_all):
    calls = []
    original = float_session.run

    def run(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    float_session.run = run
    one = watch_all(float_session)
    float_session.run(None, {"x": images})
    one.close()
    assert float_session.run is run
    assert calls == [1]


@pytest.mark.parametrize("rows", [1, 2, 16])
def test_one_row_stands_for_a_free_batch(float_session, images, watch_all, rows):
    watch = watch_all(float_session)
    for _ in range(3):
        float_session.run(None, {"x": images[:rows]})
    assert rows_seen(watch) == {3}
    assert errors(watch.snapshot()[1]) == 0


@pytest.mark.parametrize(("batch", "expected"), [(4, 12), (1, 3)])
def test_a_fixed_batch_is_replayed_whole(
    kit, eager_net, eager_maxima, images, watch_all, batch, expected
):
    session = kit.session_of(kit.cnn_model(eager_net, batch))
    watch = watch_all(session)
    for _ in range(3):
        session.run(None, {"x": images[:batch]})
    assert rows_seen(watch) == {expected}
    maxima = eager_maxima(images[:batch])
    meta, total = watch.snapshot()
    for row, point in enumerate(meta.points):
        assert total.values[row, EXTREMES] == pytest.approx(maxima[point.name], rel=1e-5)


def test_a_graph_that_refuses_one_row_is_replayed_whole(kit, watch_all):
    """Its batch is free, but a constant in it is not."""
    nodes = [
        node("Reshape", ["x", "shape"], ["r"]),
        node("MatMul", ["r", "fc.weight"], ["y"]),
    ]
    values = {"shape": np.array([2, 2, 3]), "fc.weight": np.ones((3, 2), np.float32)}
    session = kit.session_of(kit.model_of(nodes, {"x": ["b", 3]}, ["y"], values))
    watch = watch_all(session)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    for _ in range(2):
        session.run(None, {"x": x})
    assert rows_seen(watch) == {8}
    assert errors(watch.snapshot()[1]) == 0


def test_several_inputs_and_one_that_all_rows_share(kit, watch_all):
    nodes = [
        node("Gather", ["words.weight", "ids"], ["e"]),
        node("Add", ["e", "bias"], ["a"]),
        node("MatMul", ["a", "fc.weight"], ["y"]),
    ]
    values = {
        "words.weight": np.arange(40, dtype=np.float32).reshape(10, 4),
        "fc.weight": np.ones((4, 2), np.float32),
    }
    session = kit.session_of(
        kit.model_of(
            nodes,
            {"ids": ["b", "t"], "bias": [1, 1, 4]},
            ["y"],
            values,
            types={"ids": TensorProto.INT64},
        )
    )
    watch = watch_all(session)
    ids = np.array([[1, 2, 3]] * 5)
    session.run(
        input_feed={"bias": np.full((1, 1, 4), -5, np.float32), "ids": ids}, output_names=[]
    )
    meta, total = watch.snapshot()
    assert [point.name for point in meta.points] == ["words:output", "fc:input"]
    assert total.values[:, EXTREMES].tolist() == [[4, 15], [-1, 10]]


def test_an_error_of_the_session_passes_unchanged(float_session, images, watch_all):
    watch = watch_all(float_session)
    with pytest.raises(Refusal):
        float_session.run(None, {"x": images[:, :, :, :4]})
    with pytest.raises(ValueError, match="missing from input feed"):
        float_session.run(None, {})
    float_session.run(None, {"x": images})
    assert watch.report().observed_calls == 1


def test_feeds_that_cannot_be_copied_are_dropped_and_counted(float_session, images, watch_all):
    watch = watch_all(float_session)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(images)
    (expected,) = float_session.run(None, {"x": images})
    assert np.array_equal(float_session.run(None, {"x": value})[0], expected)
    assert watch.report().observed_calls == 2
    with pytest.raises(Exception, match="Unexpected input data type"):
        float_session.run(None, {"x": images.astype(np.float64)})
    assert drops(watch.snapshot()[1], DropReason.UNSUITABLE_INPUT) == 1


def test_text_inputs_are_reported_and_passed_on(kit, watch_all):
    nodes = [
        node("MatMul", ["x", "fc.weight"], ["y"]),
        node("Identity", ["text"], ["same"]),
    ]
    model = kit.model_of(
        nodes,
        {"x": ["b", 4], "text": [1]},
        ["y", "same"],
        {"fc.weight": np.ones((4, 2), np.float32)},
        types={"text": TensorProto.STRING},
    )
    session = kit.session_of(model)
    watch = watch_all(session)
    feeds = {"x": np.ones((2, 4), np.float32), "text": np.array(["a"], object)}
    assert session.run(None, feeds)[1].tolist() == ["a"]
    assert watch.report().observed == ("fc:input",)
    assert errors(watch.snapshot()[1]) == 0


def test_other_ways_to_run_pass_unseen(float_session, images, watch_all):
    watch = watch_all(float_session)
    (expected,) = float_session.run(None, {"x": images})
    binding = float_session.io_binding()
    binding.bind_cpu_input("x", images)
    binding.bind_output("y")
    float_session.run_with_iobinding(binding)
    assert np.array_equal(binding.copy_outputs_to_cpu()[0], expected)
    values = {"x": onnxruntime.OrtValue.ortvalue_from_numpy(images)}
    assert np.array_equal(float_session.run_with_ort_values(None, values)[0].numpy(), expected)
    _, total = watch.snapshot()
    assert total.requests[RequestColumn.SEEN] == 1


def test_run_async_passes_unseen(float_model, images, watch_all):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2  # it runs there
    session = onnxruntime.InferenceSession(
        float_model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    watch = watch_all(session)
    done, results = threading.Event(), []

    def callback(outputs, _, error):
        results.append((outputs, error))
        done.set()

    session.run_async(None, {"x": images}, callback, None)
    assert done.wait(20)
    assert results[0][1] == ""
    assert watch.snapshot()[1].requests[RequestColumn.SEEN] == 0


def test_a_replay_that_fails_is_counted_and_nothing_else(
    float_session, images, watch_all, monkeypatch
):
    from calidrift_agent._onnx import Replica

    monkeypatch.setattr(Replica, "run", lambda *_: 1 / 0)
    (expected,) = float_session.run(None, {"x": images})
    watch = watch_all(float_session)
    assert np.array_equal(float_session.run(None, {"x": images})[0], expected)
    _, total = watch.snapshot()
    assert total.requests[RequestColumn.ERROR_FIRST + list(Stage).index(Stage.SHADOW)] == 1
    assert total.requests[RequestColumn.OBSERVED] == 0


def test_the_host_may_write_to_its_feed_afterwards(float_session, images, watch_all):
    watch = watch_all(float_session)
    feed = images.copy()
    float_session.run(None, {"x": feed})
    feed[:] = 1e6
    assert watch.snapshot()[1].values[0, ValueColumn.HIGHEST] <= images.max()


def test_threads_share_a_session(float_session, images, watch_all):
    (expected,) = float_session.run(None, {"x": images})
    watch = watch_all(float_session)
    wrong = []

    def serve():
        outputs = [float_session.run(None, {"x": images})[0] for _ in range(20)]
        wrong.extend(one for one in outputs if not np.array_equal(one, expected))

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _, total = watch.snapshot()
    assert not wrong
    assert total.requests[RequestColumn.SEEN] == 80
    assert errors(total) == 0


def test_the_replay_runs_on_another_thread(float_session, images, watch_all, monkeypatch):
    from calidrift_agent._onnx import Replica

    ran, done, original = [], threading.Event(), Replica.run

    def run(self, feeds, rows):
        ran.append(threading.current_thread().name)
        done.set()
        return original(self, feeds, rows)

    monkeypatch.setattr(Replica, "run", run)
    watch_all(float_session, options=WatchOptions(drain_seconds=0.05))
    float_session.run(None, {"x": images})
    assert done.wait(20)
    assert set(ran) == {"calidrift-net"}


def test_a_profile_of_the_session_gives_coverage(int8_session, images, watch_all):
    profile = calibrate(int8_session, [{"x": images[:8]}, {"x": images[8:]}])
    watch = watch_all(int8_session, profile=profile)
    int8_session.run(None, {"x": images * 0.5})
    int8_session.run(None, {"x": images * 9})
    _, total = watch.snapshot()
    units, covered = total.requests[[RequestColumn.UNITS, RequestColumn.UNITS_COVERED]]
    assert (units, covered) == (2, 1)


def test_ranges_of_the_file_and_a_calibration_of_the_fp32_session(
    int8_model, int8_session, float_session, images, tmp_path, watch_all
):
    onnx.save(int8_model, tmp_path / "m.onnx")
    merged = CalibrationProfile.from_onnx(tmp_path / "m.onnx").merge(
        calibrate(float_session, [{"x": images}])
    )
    watch = watch_all(int8_session, profile=merged)
    int8_session.run(None, {"x": images * 9})
    meta, total = watch.snapshot()
    named = {point.name: row for row, point in enumerate(meta.points)}
    assert total.counts[named["stem:input"], CountColumn.EXCEEDANCES] == 1
    assert total.counts[named["node_add:input"], CountColumn.UNITS] == 0  # no layer reads it


def test_clip_ranges_for_a_float_session_come_from_the_profile(
    float_model, float_session, images, watch_all, tmp_path
):
    onnx.save(float_model, tmp_path / "m.onnx")
    (tmp_path / "cache").write_text("TRT-8501-EntropyCalibration2\nx: 3c010a14\n")
    profile = CalibrationProfile.from_tensorrt_cache(tmp_path / "cache", onnx=tmp_path / "m.onnx")
    watch = watch_all(float_session, profile=profile)
    shown = 3 * images[:1]
    float_session.run(None, {"x": shown})
    bound = profile.points["stem:input"].clip_bound
    expected = (shown > bound.hi + bound.scale / 2).sum()
    _, total = watch.snapshot()
    assert total.counts[0, CountColumn.CLIP_HIGH] == expected > 5
    assert total.counts[1:, CLIPS].tolist() == [[0, 0, 0]] * 3


def test_a_profile_of_another_model_is_refused(int8_session, float_session, images):
    profile = calibrate(float_session, [{"x": images}])
    with pytest.raises(ProfileMismatchError, match="it lacks"):
        watch(int8_session, name="net", profile=profile)
    assert "run" not in int8_session.__dict__


def test_a_model_without_points_is_refused(kit):
    session = kit.session_of(kit.model_of([node("Relu", ["x"], ["y"])], {"x": ["b", 4]}, ["y"]))
    with pytest.raises(AttachError, match="nothing to observe"):
        watch(session, name="net")
    with pytest.raises(AttachError, match="no quantizer, convolution"):
        calibrate(session, [{"x": np.ones((1, 4), np.float32)}])


def test_a_missing_package_is_named_when_watching(float_session, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigurationError, match=r'onnx .*pip install "calidrift\[onnx\]"'):
        watch(float_session, name="net")


@pytest.mark.slow
def test_the_agent_imports_neither_package_by_itself():
    code = (
        "import sys, torch; from calidrift_agent import calibrate, watch\n"
        "net = torch.nn.Sequential(torch.nn.Linear(2, 2)).eval()\n"
        "with watch(net, name='n', sample_rate=1.0) as one: net(torch.ones(1, 2)); one.flush()\n"
        "calibrate(net, [torch.ones(1, 2)])\n"
        "print(sorted({'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


def test_captures_hold_the_feeds(float_session, images, watch_all, tmp_path):
    profile = calibrate(float_session, [{"x": images}])
    watch = watch_all(float_session, profile=profile, state_dir=tmp_path, capture=CaptureOptions())
    float_session.run(None, {"x": images[:1] * 9})
    watch.flush()
    files = list(tmp_path.rglob("*.safetensors"))
    assert files
    assert any(np.array_equal(read_capture(one).inputs["x"], images[:1] * 9) for one in files)


def test_the_allow_list_of_captures_names_the_feeds(float_session, images, watch_all, tmp_path):
    with pytest.raises(ConfigurationError, match=r"'arg0', which is no input .* are 'x'; correct"):
        watch_all(float_session, state_dir=tmp_path, capture=CaptureOptions(inputs=("arg0",)))
    watch = watch_all(float_session, state_dir=tmp_path, capture=CaptureOptions(inputs=("x",)))
    float_session.run(None, {"x": images[:1]})
    watch.flush()
    assert [set(read_capture(one).inputs) for one in tmp_path.rglob("*.safetensors")] == [{"x"}]


def test_a_weight_note_for_larger_models(kit, watch_all):
    values = {
        "fc.weight": np.ones((600, 500), np.float32),
        "h.weight": np.ones((500, 2), np.float32),
    }
    nodes = [node("MatMul", ["x", "fc.weight"], ["a"]), node("MatMul", ["a", "h.weight"], ["y"])]
    session = kit.session_of(kit.model_of(nodes, {"x": ["b", 600]}, ["y"], values))
    assert any("1 MB of weights" in note for note in watch_all(session).report().notes)


def test_the_reference_of_a_session_is_compared_with_its_output(
    int8_session, eager_net, images, watch_all
):
    watch = watch_all(int8_session, reference=eager_net)
    int8_session.run(None, {"x": images})
    _, total = watch.snapshot()
    assert total.requests[RequestColumn.COMPARED] == 1
    assert 0 < total.requests[RequestColumn.NOISE_PPB] < 0.05e9


def test_padding_is_left_out(kit, watch_all):
    """Tokens that an attention mask calls padding count nowhere."""
    nodes = [
        node("Gather", ["words.weight", "input_ids"], ["e"]),
        node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["m", "last"], ["m3"]),
        node("Div", ["e", "m3"], ["a"]),
        node("MatMul", ["a", "fc.weight"], ["y"]),
    ]
    values = {
        "words.weight": np.arange(1, 41, dtype=np.float32).reshape(10, 4),
        "fc.weight": np.ones((4, 2), np.float32),
        "last": np.array([-1]),
    }
    kinds = {"input_ids": TensorProto.INT64, "attention_mask": TensorProto.INT64}
    session = kit.session_of(
        kit.model_of(nodes, {name: ["b", "t"] for name in kinds}, ["y"], values, types=kinds)
    )
    watch = watch_all(session)
    ids, mask = np.array([[0, 1, 9]] * 3), np.array([[1, 1, 0]] * 3)
    session.run(None, {"input_ids": ids, "attention_mask": mask})
    meta, total = watch.snapshot()
    row = [point.name for point in meta.points].index("fc:input")
    assert total.values[row, ValueColumn.HIGHEST] == 8.0  # of the second word: 9.0 is infinite
    assert total.counts[row, [CountColumn.ELEMENTS, CountColumn.INF]].tolist() == [8, 0]
    assert total.counts[row, CountColumn.PADDED_ELEMENTS] == 4


def test_calibration_refuses_what_run_would(float_session, images):
    for batches in ({"x": images}, 3):
        with pytest.raises(ConfigurationError, match="must be an iterable of feeds"):
            calibrate(float_session, batches)
    for batch in (images, {"y": images}, {"x": images.astype(np.float64)}):
        with pytest.raises(ConfigurationError, match=r"batch 1 .* that session.run would not take"):
            calibrate(float_session, [batch])
    with pytest.raises(Refusal) as caught:
        calibrate(float_session, [{"x": images[:, :, :4]}])
    assert "calibration batch 1" in "".join(caught.value.__notes__)


def test_calibration_of_a_float_session_is_that_of_the_eager_network(
    float_session, eager_net, images
):
    eager = calibrate(eager_net, [torch.from_numpy(images)])
    profile = calibrate(float_session, [{"x": torch.from_numpy(images)}])
    assert profile.units == 16
    for name, point in profile.points.items():
        expected = eager.find(name)
        assert point.observed_bound.top == pytest.approx(expected.observed_bound.top, rel=1e-5)
        assert point.sketch.count == expected.sketch.count


def test_calibration_of_a_quantized_session(int8_session, int8_model, images, kit):
    profile = calibrate(int8_session, [{"x": images[:10]}, {"x": images[10:]}])
    served = kit.values_of(int8_model, ["x", "r0"], {"x": images})
    for name, tensor in (("stem:input", "x"), ("block.conv1:input", "r0")):
        point = profile.points[name]
        codes = np.round(served[tensor] / point.clip_bound.scale) + point.clip_bound.zero_point
        assert point.rail_high_rate == pytest.approx((codes >= 127).mean(), abs=2e-3)
        assert point.rail_low_rate == pytest.approx((codes <= -128).mean(), abs=2e-3)
    # What min-max calibration saw is what the range instrument sees (rounded weights aside).
    for point in profile.points.values():
        assert point.observed_bound.value == pytest.approx(point.clip_bound.absmax, rel=0.03)


def time_first():
    """Attention over the first dimension of x, (time, batch, 8), as an exporter writes it."""
    weights = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    nodes = [
        node("Transpose", ["x"], ["y"], perm=[1, 0, 2]),
        node("Transpose", ["y"], ["z"], perm=[0, 2, 1]),
        node("Mul", ["y", "scale"], ["small"]),
        node("MatMul", ["small", "z"], ["scores"], name="scores"),
        node("Softmax", ["scores"], ["weights"], axis=-1),
        node("MatMul", ["weights", "y"], ["mixed"], name="mix"),
        node("MatMul", ["mixed", "w"], ["out"], name="out"),
        node("Transpose", ["out"], ["answer"], perm=[1, 0, 2]),
    ]
    shape = ["time", "batch", 8]
    graph = helper.make_graph(
        nodes,
        "time_first",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, shape)],
        [
            onnx.numpy_helper.from_array(weights, "w"),
            onnx.numpy_helper.from_array(np.array(0.05, np.float32), "scale"),
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("steps", [32, 1024])  # the latter makes tensors that are reduced
def test_a_session_with_time_first_is_replayed_whole(kit, watch_all, steps):
    session = kit.session_of(time_first())
    random = np.random.default_rng(1)
    count = 40 if steps < 100 else 12
    feeds = [random.normal(size=(steps, 3, 8)).astype(np.float32) for _ in range(count + 6)]
    profile = calibrate(session, [{"x": one} for one in feeds[:count]])
    watch = watch_all(session, profile=profile)
    for one in feeds[count:]:
        session.run(None, {"x": one})
    meta, total = watch.snapshot()
    row = [point.name for point in meta.points].index("out:input")
    assert errors(total) == 0
    assert total.counts[row, CountColumn.UNITS] == 6
    assert total.counts[row, CountColumn.EXCEEDANCES] <= 2  # of one time step alone: all of them
    assert any("replayed whole" in note for note in watch.report().notes)
