import logging
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import calidrift_agent._calibrate._record as record
from calidrift_agent._calibrate import CalibrateOptions, calibrate
from calidrift_agent._points import discover, fingerprint_of
from calidrift_agent._profile import CalibrationProfile, ObservedBound
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import Instrument
from calidrift_agent.errors import AttachError, ConfigurationError

NAN, INF = float("nan"), float("inf")


def hook_tables(model):
    return [
        {name: value for name, value in module.__dict__.items() if "hook" in name}
        for module in model.modules()
    ]


def images(rows, seed=0):
    return torch.randn(rows, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def inputs_by_hand(model, batches):
    """Oracle: every input of every point, through hooks of the test's own."""
    seen = {point.name: [] for point in discover(model).points}
    handles = [
        model.get_submodule(point.module).register_forward_pre_hook(
            lambda _, args, name=point.name: seen[name].append(args[0].numpy().copy())
        )
        for point in discover(model).points
    ]
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for handle in handles:
        handle.remove()
    return {name: np.concatenate(arrays) for name, arrays in seen.items()}


def test_bounds_and_sketches_equal_those_of_all_values(tiny_cnn):
    batches = [images(5, seed) for seed in range(3)] + [images(1, 9)]
    profile = calibrate(tiny_cnn, batches, options=CalibrateOptions(rank=2))
    for name, values in inputs_by_hand(tiny_cnn, batches).items():
        point = profile.points[name]
        units = np.sort(np.abs(values.reshape(16, -1)).max(axis=1))[::-1]
        assert point.observed_bound.top == tuple(units.astype(np.float64))
        assert point.observed_bound.value == units[1]
        assert point.observed_bound.units == 16
        sketch = MagnitudeSketch()
        sketch.update(values)
        assert point.sketch == sketch
        assert point.clip_bound is None
        assert point.rail_low_rate is None
    assert list(profile.points) == [point.name for point in discover(tiny_cnn).points]
    assert profile.units == 16
    assert profile.instrument is Instrument.RANGE


def test_the_partition_into_batches_does_not_matter(tiny_cnn):
    whole = images(12)
    together = calibrate(tiny_cnn, [whole])
    apart = calibrate(tiny_cnn, whole.split(5))
    assert together.units == apart.units
    stem = "stem:input"  # further points differ in the last bit: kernels depend on the batch size
    assert together.points[stem] == apart.points[stem]


def test_the_fingerprint_is_the_models_with_what_the_caller_knows(tiny_cnn):
    options = CalibrateOptions(data_fingerprint="d1", preprocessing="p1")
    profile = calibrate(tiny_cnn, [images(2)], options=options)
    assert profile.fingerprint == fingerprint_of(tiny_cnn, data="d1", preprocessing="p1")
    profile.require_fits(
        [point.name for point in discover(tiny_cnn).points], fingerprint_of(tiny_cnn)
    )
    assert CalibrationProfile.from_json(profile.to_json()) == profile


def test_outputs_on_request(tiny_cnn):
    batch = images(3)
    profile = calibrate(tiny_cnn, [batch], options=CalibrateOptions(outputs=True))
    with torch.no_grad():
        expected = float(tiny_cnn(batch).abs().max())
    assert profile.points["head:output"].observed_bound.value == expected


def test_embeddings_are_observed_by_their_output():
    model = nn.Sequential(nn.Embedding(4, 2), nn.Linear(2, 1)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.0, 1.0], [9.0, 0.0], [2.0, -3.0], [0.5, 0.5]]))
    profile = calibrate(model, [torch.tensor([[0, 2], [3, 3]])])
    assert profile.points["0:output"].observed_bound.top == (3.0, 0.5)
    assert profile.points["1:input"].observed_bound.top == (3.0, 0.5)


def test_keyword_inputs_of_layers_are_seen():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(input=x)

    profile = calibrate(Keyword().eval(), [torch.tensor([[3.0, -4.0]])])
    assert profile.points["fc:input"].observed_bound.value == 4.0


def test_the_input_of_a_layer_is_found_behind_its_other_keywords():
    class Upsample(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose1d(1, 1, 3)

        def forward(self, x):
            return self.up(output_size=[6], input=x)

    profile = calibrate(Upsample().eval(), [torch.tensor([[[3.0, -4.0, 1.0, 0.0]]])])
    assert profile.points["up:input"].observed_bound.value == 4.0


def test_windows_folded_into_the_batch_belong_to_their_row():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(x.reshape(-1, 2))

    batch = torch.tensor([[1.0, 2.0, 3.0, -4.0], [5.0, 0.0, 0.0, 0.0]])
    point = calibrate(Windows().eval(), [batch]).points["fc:input"]
    assert point.observed_bound.top == (5.0, 4.0)
    assert point.sketch.count == 8


def test_a_tensor_of_all_requests_together_is_charged_to_each():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(x.mean(0, keepdim=True)) + x

    point = calibrate(Mean().eval(), [torch.tensor([[1.0, 2.0], [3.0, 4.0]])]).points["fc:input"]
    assert point.observed_bound.top == (3.0, 3.0)
    assert point.sketch.count == 2


def test_a_layer_called_twice_has_one_unit_per_row():
    shared = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        shared.weight.copy_(torch.tensor([[10.0, 0.0], [0.0, 0.1]]))
    point = calibrate(
        nn.Sequential(shared, shared).eval(), [torch.tensor([[1.0, 2.0], [0.1, 5.0]])]
    )
    point = point.points["0:input"]
    assert point.observed_bound.top == (10.0, 5.0)
    assert point.observed_bound.units == 2
    assert point.sketch.count == 8


def test_layers_that_read_one_tensor_measure_it_once(monkeypatch):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(2, 2) for _ in range(3))

        def forward(self, x):
            q, k = self.q(x), self.k(x)
            x += 1.0  # in place: v reads other values in the same memory
            return q + k + self.v(x)

    calls = []
    original = record.row_absmax
    monkeypatch.setattr(record, "row_absmax", lambda one: calls.append(1) or original(one))
    profile = calibrate(Attention().eval(), [torch.tensor([[1.0, 2.0]])])
    assert len(calls) == 2
    maxima = {name: point.observed_bound.value for name, point in profile.points.items()}
    assert maxima == {"q:input": 2.0, "k:input": 2.0, "v:input": 3.0}
    assert profile.points["q:input"].sketch is not profile.points["k:input"].sketch


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_float_types(dtype):
    model = nn.Sequential(nn.Linear(2, 2)).to(dtype).eval()
    point = calibrate(model, [torch.tensor([[1.5, -2.5]], dtype=dtype)]).points["0:input"]
    assert point.observed_bound.value == point.sketch.absmax == 2.5


def test_works_in_inference_mode(tiny_cnn):
    with torch.inference_mode():
        profile = calibrate(tiny_cnn, [images(2)])
    assert not profile.unobserved


def test_a_compiled_model_is_calibrated_eagerly(tiny_cnn):
    batch = images(2)
    expected = calibrate(tiny_cnn, [batch])
    with warnings.catch_warnings():
        # torch 2.13 defines a deprecated TorchScript class while it imports Inductor.
        warnings.simplefilter("ignore", DeprecationWarning)
        compiled = torch.compile(tiny_cnn, backend="eager")
        with torch.no_grad():
            compiled(batch)
        assert calibrate(compiled, [batch]).points == expected.points
        tiny_cnn.compile(backend="eager")
        with torch.no_grad():
            tiny_cnn(batch)
        assert calibrate(tiny_cnn, [batch]).points == expected.points


# --- the model is left as it was --------------------------------------------------------------


def test_hooks_are_removed_and_those_of_the_host_kept(tiny_cnn):
    order = []
    tiny_cnn.head.register_forward_pre_hook(lambda *_: order.append("host"))
    tiny_cnn.head.register_forward_pre_hook(lambda _, args: (args[0] * 2,))
    before = hook_tables(tiny_cnn)
    batch = images(2)
    profile = calibrate(tiny_cnn, [batch], options=CalibrateOptions(outputs=True))
    assert hook_tables(tiny_cnn) == before
    assert order == ["host"]
    doubled = inputs_by_hand(tiny_cnn, [batch])["head:input"]  # sees what the module itself sees
    assert profile.points["head:input"].observed_bound.value == float(np.abs(doubled).max())


def test_hooks_are_removed_when_the_forward_raises(tiny_cnn):
    before = hook_tables(tiny_cnn)
    with pytest.raises(RuntimeError):
        calibrate(tiny_cnn, [images(2), torch.zeros(2, 7)])
    assert hook_tables(tiny_cnn) == before


def test_weights_outputs_and_gradients_are_untouched(tiny_cnn):
    batch = images(2)
    weights = {name: value.clone() for name, value in tiny_cnn.state_dict().items()}
    expected = tiny_cnn(batch)
    calibrate(tiny_cnn, [batch])
    assert torch.equal(tiny_cnn(batch), expected)
    assert all(torch.equal(weights[name], one) for name, one in tiny_cnn.state_dict().items())
    assert tiny_cnn.head.weight.grad is None
    assert not tiny_cnn.training


def test_other_threads_run_the_model_undisturbed_and_unobserved():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).eval()
    stop, failures = threading.Event(), []

    def serve():
        while not stop.is_set():
            try:
                model(torch.full((5, 2), 1000.0))
            except Exception as error:
                failures.append(error)

    servers = [threading.Thread(target=serve) for _ in range(2)]
    for server in servers:
        server.start()
    try:
        for _ in range(100):
            bound = calibrate(model, [torch.ones(3, 2)] * 2).points["0:input"].observed_bound
            assert (bound.value, bound.units) == (1.0, 6)
    finally:
        stop.set()
        for server in servers:
            server.join(30)
    assert failures == []


# --- what cannot be measured ------------------------------------------------------------------


def test_units_that_are_not_finite_raise_the_rank_and_not_the_bound():
    model = nn.Sequential(nn.Linear(2, 2)).eval()
    batch = torch.tensor([[1.0, NAN], [-INF, 0.5], [NAN, INF], [0.25, -0.25]])
    point = calibrate(model, [batch]).points["0:input"]
    assert point.observed_bound == ObservedBound(value=0.25, rank=4, units=4, top=(0.25,))
    assert (point.sketch.nan_count, point.sketch.inf_count, point.sketch.count) == (2, 2, 4)
    assert (point.sketch.minimum, point.sketch.maximum) == (-0.25, 1.0)


def test_a_unit_is_broken_if_any_call_of_a_shared_layer_was():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(self.fc(x).nan_to_num(0.0, 0.0, 0.0) * 0 + 1)

    point = calibrate(Twice().eval(), [torch.tensor([[NAN, 1.0], [3.0, 1.0], [2.0, 1.0]])])
    assert point.points["fc:input"].observed_bound == ObservedBound(3.0, 2, 3, (3.0, 2.0))


def test_calibration_and_production_agree_on_which_units_are_outside():
    """Row by row: what calibration takes for infinitely large, production counts as exceeding."""
    from calidrift_agent._taps._measure import extremes_of

    rng = np.random.default_rng(4)
    values = rng.standard_normal((64, 5)).astype(np.float32)
    values[rng.random(values.shape) < 0.05] = NAN
    values[rng.random(values.shape) < 0.05] = INF
    batch = torch.from_numpy(values)
    bound = calibrate(nn.Linear(5, 1).eval(), [batch]).points[":input"].observed_bound
    found = extremes_of(batch, 64, None, (-INF, INF))
    absmax = np.maximum(np.abs(found.highs), np.abs(found.lows))
    absmax[list(found.broken)] = INF
    assert bound.units == 64
    assert (absmax > bound.value).sum() == len(found.broken) == bound.rank - 1 > 5


def test_a_point_without_a_finite_value_has_no_bound_and_is_listed(caplog):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.two(self.one(x) * NAN)

    with caplog.at_level(logging.WARNING, "calidrift_agent"):
        profile = calibrate(Broken().eval(), [torch.ones(3, 2)])
    assert profile.unobserved == ("two:input",)
    assert profile.points["two:input"].sketch.nan_count == 6
    assert "no bound for two:input" in caplog.text


def test_a_point_that_never_fires_is_listed(caplog):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Linear(2, 2)
            self.unused = nn.ModuleList(nn.Linear(2, 2) for _ in range(7))

        def forward(self, x):
            return self.used(x)

    with caplog.at_level(logging.WARNING, "calidrift_agent"):
        profile = calibrate(Half().eval(), [torch.ones(3, 2)])
    assert len(profile.unobserved) == 7
    assert profile.points["unused.0:input"].sketch is None
    assert "unused.4:input and 2 more" in caplog.text


def test_zero_element_activations_have_no_bound(caplog):
    class Empty(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            self.two(x[:, :0].reshape(0, 2))
            return self.one(x)

    profile = calibrate(Empty().eval(), [torch.ones(3, 2)])
    assert profile.unobserved == ("two:input",)
    assert profile.points["one:input"].observed_bound.units == 3


def test_layers_fed_with_something_else_than_floats_are_left_alone():
    class Odd(nn.Linear):
        def forward(self, x):
            return x

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.odd, self.text = nn.Linear(2, 2), Odd(2, 2), Odd(2, 2)

        def forward(self, x):
            self.odd(x.long())
            self.text("text")
            return self.one(x)

    options = CalibrateOptions(outputs=True)
    profile = calibrate(Model().eval(), [torch.ones(3, 2)], options=options)
    assert set(profile.unobserved) == {"odd:input", "odd:output", "text:input", "text:output"}


@pytest.mark.parametrize("kind", ["sparse", "nested", "jagged"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_layers_fed_with_tensors_without_rows_are_left_alone(kind):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.odd = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            if kind == "sparse":
                self.odd(x.to_sparse())
            else:
                layout = torch.jagged if kind == "jagged" else torch.strided
                self.odd(torch.nested.nested_tensor([x[:1], x[1:]], layout=layout))
            return self.one(x)

    profile = calibrate(Model().eval(), [torch.ones(3, 2)])
    assert profile.unobserved == ("odd:input",)
    assert profile.points["one:input"].observed_bound.units == 3


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_encoder_that_packs_its_padded_input_is_refused_with_the_reason():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.TransformerEncoder(layer, 1)

        def forward(self, x, padding):
            return self.inner(x, src_key_padding_mask=padding)

    padding = torch.tensor([[False, False, True], [False, False, False]])
    with pytest.raises(AttachError, match="nested or sparse"):
        calibrate(Encoder().eval(), [{"x": torch.ones(2, 3, 8), "padding": padding}])


@pytest.mark.parametrize(
    "wrong",
    [{"rank": "1"}, {"rank": 1.5}, {"rank": True}, {"data_fingerprint": 7}, {"preprocessing": b""}],
)
def test_options_of_another_type_are_refused_before_the_work(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        CalibrateOptions(**wrong)


def test_a_model_none_of_whose_points_fires_is_refused():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return x

    with pytest.raises(AttachError, match="none of the 1 points fired with a dense"):
        calibrate(Idle().eval(), [torch.ones(1, 2)])


def test_training_mode_is_refused(tiny_cnn):
    tiny_cnn.block.bn1.train()
    with pytest.raises(AttachError, match=r"the module block\.bn1 is in training mode"):
        calibrate(tiny_cnn, [images(2)])
    with pytest.raises(AttachError, match="the model is in training mode"):
        calibrate(tiny_cnn.train(), [images(2)])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.ReLU(), "no convolution, linear or embedding layer"),
        (nn.LSTM(2, 2), "the model: recurrent"),
        ("model", "only a torch.nn.Module"),
    ],
)
def test_models_without_points_are_refused(model, message):
    with pytest.raises(AttachError, match=message):
        calibrate(model, [torch.ones(1, 2)])
