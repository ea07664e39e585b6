"""`watch(..., reference=...)`: harm without labels, against independent arithmetic."""

import copy
import math

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry
from torch import nn
from torch.nn import functional as F

from calidrift_agent._state import ReferenceFigures
from calidrift_agent._vocabulary import DropReason, RequestColumn, Stage, Strategy
from calidrift_agent._watch import WatchOptions
from calidrift_agent.errors import AttachError

R = RequestColumn


def errors(total, stage):
    return int(total.requests[R.ERROR_FIRST + list(Stage).index(stage)])


def drops(total, reason):
    return int(total.requests[R.DROP_FIRST + list(DropReason).index(reason)])


def requests(number, rows=1):
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(rows, 6, generator=generator) for _ in range(number)]


def network(*, classes=5):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, classes)).eval()


def rounded(model, bits):
    """A copy whose weights are rounded to a grid, as weight quantization does."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for weight in twin.parameters():
            step = weight.abs().max() / (2 ** (bits - 1) - 1)
            weight.copy_((weight / step).round() * step)
    return twin


def serve(model, inputs):
    with torch.inference_mode():
        return [model(one) for one in inputs]


class Noisy(nn.Module):
    """The answers of a network plus noise of a known share of their energy."""

    def __init__(self, inner, decibels):
        super().__init__()
        self.inner, self.scale = inner, 10 ** (-decibels / 20)

    def forward(self, x):
        y = self.inner(x)
        noise = torch.ones_like(y)
        return y + noise / noise.norm(dim=1, keepdim=True) * y.norm(dim=1, keepdim=True) * (
            self.scale
        )


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_the_columns_are_sums_of_independent_figures(watch_all, bits):
    reference = network()
    served, inputs = rounded(reference, bits), requests(60)
    watch = watch_all(served, reference=reference)
    answers = serve(served, inputs)
    total = watch.snapshot()[1].requests
    # Pure numpy, request by request.
    noises, distances, agreed = [], [], 0
    for answer, truth in zip(answers, serve(reference, inputs), strict=True):
        one, other = answer.double().numpy()[0], truth.double().numpy()[0]
        noises.append(min(1.0, float(np.square(one - other).sum() / np.square(other).sum())))
        cosine = one @ other / np.sqrt((one @ one) * (other @ other))
        distances.append((1 - cosine) / 2)
        agreed += int(one.argmax() == other.argmax())
    assert total[[R.COMPARED, R.RANKED, R.AGREED]].tolist() == [60, 60, agreed]
    assert total[R.NOISE_PPB] == pytest.approx(sum(noises) * 1e9, abs=200)
    assert total[R.DISTANCE_PPB] == pytest.approx(sum(distances) * 1e9, abs=200)
    assert (agreed < 60) is (bits < 8)  # a rate that could be wrong


@pytest.mark.parametrize("decibels", [10.0, 25.0])
def test_a_known_sqnr_is_recovered(watch_all, decibels):
    reference = network()
    served = Noisy(reference, decibels).eval()
    watch = watch_all(served, reference=reference)
    serve(served, requests(20, rows=4))
    found = ReferenceFigures.of(watch.snapshot()[1].requests)
    assert found.compared == 20
    assert found.sqnr_db == pytest.approx(decibels, abs=0.01)


def test_a_quantized_graph_beside_its_fp32_module(watch_all, tiny_int8, tiny_cnn, copy_graph):
    graph = copy_graph(tiny_int8.graph)
    row = tiny_int8.example[2:3]
    batch = torch.cat([row] * 4)  # any row is this row
    watch = watch_all(graph, reference=tiny_cnn)
    with torch.no_grad():
        one, other = graph(batch)[0].double(), tiny_cnn(row)[0].double()
    found = ReferenceFigures.of(watch.snapshot()[1].requests)
    expected = 10 * math.log10(float(other.square().sum() / (one - other).square().sum()))
    assert watch.report().strategy is Strategy.BESIDE
    assert found.compared == 1
    assert found.sqnr_db == pytest.approx(expected, abs=1e-3)
    assert 10 < found.sqnr_db < 60
    assert found.agreement == float(one.argmax() == other.argmax())


def test_the_row_of_a_batch_is_the_same_on_both_sides(watch_all):
    """With another row on one side, equal models would differ."""
    reference = network()
    watch = watch_all(copy.deepcopy(reference), reference=reference)
    model = watch._active.gate.owner
    serve(model, requests(30, rows=8))
    total = watch.snapshot()[1].requests
    assert total[R.COMPARED] == 30
    assert total[R.NOISE_PPB] < 30  # rounding of a batch of eight against a batch of one


def test_captures_and_the_reference_share_copies(watch_all, tmp_path):
    from calidrift_agent._capture import CaptureOptions

    reference = network()
    model = copy.deepcopy(reference)
    watch = watch_all(model, reference=reference, state_dir=tmp_path, capture=CaptureOptions())
    serve(model, requests(4, rows=3))
    total = watch.snapshot()[1]
    assert total.requests[R.COMPARED] == 4
    assert total.requests[R.NOISE_PPB] < 4
    assert not total.requests[R.ERROR_FIRST :].any()


def test_several_places_with_classes(watch_all):
    class Tokens(nn.Module):
        def __init__(self, wrong):
            super().__init__()
            self.fc, self.wrong = nn.Linear(6, 6), wrong

        def forward(self, x):
            y = self.fc(x)[:, None].expand(-1, 10, -1).clone()
            if self.wrong:
                y[:, :3] *= -1.0  # three of ten tokens have another class
            return y

    reference = Tokens(False).eval()
    served = Tokens(True).eval()
    served.fc = copy.deepcopy(reference.fc)
    watch = watch_all(served, reference=reference)
    serve(served, requests(300))
    found = ReferenceFigures.of(watch.snapshot()[1].requests)
    # 0.7 with a standard error of 0.026; a fixed token would say 0 or 1.
    assert 0.6 < found.agreement < 0.8


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_reference_of_another_type(watch_all, dtype):
    served = network()
    reference = copy.deepcopy(served).to(dtype)
    watch = watch_all(served, reference=reference)
    serve(served, requests(5))
    found = ReferenceFigures.of(watch.snapshot()[1].requests)
    assert found.compared == 5
    assert (found.sqnr_db > 90) is (dtype is torch.float64)
    assert found.sqnr_db > 30


def test_without_classes_agreement_is_absent(watch_all):
    reference = network(classes=1)
    served = rounded(reference, 4)
    watch = watch_all(served, reference=reference)
    serve(served, requests(5))
    report, samples = watch.report(), collected(watch)
    assert any("no classes" in note for note in report.notes)
    assert "calidrift_reference_agreement_ratio" not in samples
    assert samples["calidrift_reference_compared_total"] == 5


def collected(watch):
    registry = CollectorRegistry()
    registry.register(watch.collector())
    return {sample.name: sample.value for family in registry.collect() for sample in family.samples}


def test_the_collector_reports_what_the_columns_say(watch_all):
    reference = network()
    served = rounded(reference, 4)
    watch = watch_all(served, reference=reference)
    names = ("compared_total", "sqnr_db", "agreement_ratio", "cosine")
    before = collected(watch)
    assert not any(f"calidrift_reference_{name}" in before for name in names)
    serve(served, requests(10))
    found, after = ReferenceFigures.of(watch.snapshot()[1].requests), collected(watch)
    expected = (found.compared, found.sqnr_db, found.agreement, found.cosine)
    assert tuple(after[f"calidrift_reference_{name}"] for name in names) == expected


def test_outputs_and_attributes_stay_as_they_were(watch_all):
    reference = network()
    served = rounded(reference, 4)
    before = [dict(module.__dict__) for model in (reference, served) for module in model.modules()]
    expected = serve(served, requests(5))
    watch = watch_all(served, reference=reference)
    answers = serve(served, requests(5))
    watch.close()
    after = [dict(module.__dict__) for model in (reference, served) for module in model.modules()]
    assert all(map(torch.equal, answers, expected))
    assert before == after


def test_the_reference_may_be_the_served_module_itself(watch_all):
    model = network()
    watch = watch_all(model, reference=model)
    expected = serve(network(), requests(3))
    assert all(map(torch.equal, serve(model, requests(3)), expected))
    assert ReferenceFigures.of(watch.snapshot()[1].requests).sqnr_db > 90


class Leaving(nn.Module):
    def forward(self, x):
        raise SystemExit(3)


class Raising(nn.Module):
    def forward(self, x):
        raise ValueError("no")


class Larger(nn.Module):
    def forward(self, x):
        return torch.ones(x.shape[0], 9)


class Words(nn.Module):
    def forward(self, x):
        return ["cat"] * x.shape[0]


@pytest.mark.parametrize(
    "reference", [Raising(), Leaving(), Larger(), Words()], ids=lambda one: one._get_name()
)
def test_errors_of_the_reference_cost_only_the_comparison(watch_all, reference, caplog):
    served = network()
    watch = watch_all(served, reference=reference.eval())
    expected = serve(network(), requests(30))
    assert all(map(torch.equal, serve(served, requests(30)), expected))
    total = watch.snapshot()[1]
    assert total.requests[[R.OBSERVED, R.COMPARED]].tolist() == [30, 0]
    assert errors(total, Stage.SHADOW) == 5  # then it is given up
    report = watch.report()
    assert report.active
    assert any("no longer run: it failed 5 times" in note for note in report.notes)
    assert len(caplog.records) == 1


def test_what_a_shadow_pass_exits_with_does_not_end_the_drain(watch_all, monkeypatch):
    served = torch.compile(network(), backend="eager")
    serve(served, requests(1))
    watch = watch_all(served)

    def leaves(call):
        raise SystemExit(3)

    monkeypatch.setattr(watch._active.engine.books.tally.shadow, "run", leaves)
    serve(served, requests(3))
    assert errors(watch.snapshot()[1], Stage.SHADOW) == 3
    assert watch.report().active


def test_an_interrupt_of_the_host_goes_through(watch_all):
    class Interrupted(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    served = network()
    watch = watch_all(served, reference=Interrupted())
    serve(served, requests(1))
    with pytest.raises(KeyboardInterrupt):
        watch.report()
    assert watch.report().active


def test_an_error_now_and_then_does_not_end_it(watch_all):
    class Moody(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.calls = inner, 0

        def forward(self, x):
            self.calls += 1
            if self.calls % 3 == 0:
                raise RuntimeError("not today")
            return self.inner(x)

    served = network()
    reference = Moody(network())
    watch = watch_all(served, reference=reference)
    serve(served, requests(30))
    total = watch.snapshot()[1]
    assert total.requests[R.COMPARED] == 20
    assert errors(total, Stage.SHADOW) == 10
    assert watch.report().active
    assert reference.calls == 0  # only its copy was run


class Dropping(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, training=True)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls.add_(1.0)
        return x


class Tuning(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        try:
            self.fc.weight.mul_(0.5)
        except RuntimeError:
            return torch.zeros(x.shape[0], 5)
        return self.fc(x)


@pytest.mark.parametrize(
    "reference", [Dropping(), Counting(), Tuning()], ids=lambda o: o._get_name()
)
def test_a_reference_with_side_effects_is_refused_before_they_happen(watch_all, reference):
    state = {name: value.clone() for name, value in reference.state_dict().items()}
    served = network()
    watch = watch_all(served, reference=reference.eval())
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    serve(served, requests(1))
    total = watch.snapshot()[1]
    assert torch.equal(torch.rand(3), expected)
    assert total.requests[R.COMPARED] == 0
    assert errors(total, Stage.SHADOW) == 1
    assert all(torch.equal(value, state[name]) for name, value in reference.state_dict().items())


def test_a_reference_in_training_mode_runs_in_eval_mode(watch_all):
    served = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.9), nn.Linear(6, 3)).eval()
    reference = copy.deepcopy(served).train()
    watch = watch_all(served, reference=reference)
    serve(served, requests(5))
    assert ReferenceFigures.of(watch.snapshot()[1].requests).sqnr_db > 90
    assert any("training mode" in note for note in watch.report().notes)
    assert all(module.training for module in reference.modules())


class Cache:
    def __init__(self):
        self.touched = 0


class Cached(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 5)

    def forward(self, x, cache=None):
        if cache is not None:
            cache.touched += 1
        return {"logits": self.fc(x), "cache": cache}


def test_a_call_with_a_state_is_not_repeated(watch_all):
    served = Cached().eval()
    reference = copy.deepcopy(served)
    watch = watch_all(served, reference=reference)
    cache = Cache()
    with torch.inference_mode():
        served(requests(1)[0], cache=cache)
        served(requests(1)[0])
    total = watch.snapshot()[1]
    assert cache.touched == 1
    assert drops(total, DropReason.STATEFUL_CALL) == 1
    assert total.requests[R.COMPARED] == 1
    assert not errors(total, Stage.SHADOW)


def test_padded_positions_are_not_compared(watch_all):
    """At padded positions the served answers are noise; nobody reads them."""

    class Tagger(nn.Module):
        def __init__(self, noise):
            super().__init__()
            self.fc, self.noise = nn.Linear(6, 4), noise

        def forward(self, inputs_embeds, attention_mask):
            y = self.fc(inputs_embeds)
            return y + self.noise * (1 - attention_mask)[..., None]

    reference = Tagger(0.0).eval()
    served = Tagger(1e3).eval()
    served.fc = copy.deepcopy(reference.fc)
    watch = watch_all(served, reference=reference)
    mask = (torch.arange(8) < 3).long().expand(2, 8)
    with torch.inference_mode():
        for _ in range(20):
            served(inputs_embeds=torch.randn(2, 8, 6), attention_mask=mask)
    found = ReferenceFigures.of(watch.snapshot()[1].requests)
    assert found.compared == 20
    assert found.sqnr_db > 90
    assert found.agreement == 1.0


def test_a_session_is_compared_once(watch_all):
    from calidrift_agent import request_context

    served = network()
    watch = watch_all(served, reference=network())
    with request_context(session="a"):
        serve(served, requests(4))
    serve(served, requests(2))
    assert watch.snapshot()[1].requests[R.COMPARED] == 3


def test_inputs_that_the_model_overwrites_are_compared_as_sent(watch_all):
    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 5)

        def forward(self, x):
            y = self.fc(x)
            x.fill_(1e6)
            return y

    served = Overwriting().eval()
    reference = copy.deepcopy(served)
    watch = watch_all(served, reference=reference)
    serve(served, requests(4))
    assert watch.snapshot()[1].requests[[R.COMPARED, R.NOISE_PPB]].tolist() == [4, 0]


def test_a_budget_and_the_drain_thread(watch_all):
    served = network()
    options = WatchOptions(drain_seconds=0.01, seed=0, budget=1.0)
    watch = watch_all(served, reference=network(), options=options)
    serve(served, requests(50))
    watch.close()
    compared = watch.snapshot()[1].requests[R.COMPARED]
    assert 0 < compared <= 50


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("text", "reference is str"),
        (lambda x: x, "reference is function"),
        (nn.Sequential(torch.compile(nn.Linear(6, 5), backend="eager")), "compiled"),
    ],
    ids=["text", "function", "compiled part"],
)
def test_what_cannot_be_a_reference(watch_all, reference, message):
    served = network()
    with pytest.raises(AttachError, match=message):
        watch_all(served, reference=reference)
    assert "forward" not in served.__dict__


def test_a_quantized_graph_is_no_reference(watch_all, tiny_cnn, tiny_int8):
    with pytest.raises(AttachError, match="the FP32 module that was quantized"):
        watch_all(tiny_cnn, reference=tiny_int8.graph)


def test_a_reference_that_cannot_be_copied(watch_all):
    import threading

    reference = network()
    reference.lock = threading.Lock()
    with pytest.raises(AttachError, match="cannot be copied"):
        watch_all(network(), reference=reference)


def test_an_argument_of_another_name(watch_all):
    with pytest.raises(TypeError, match="unexpected keyword argument 'referense'"):
        watch_all(network(), referense=network())
