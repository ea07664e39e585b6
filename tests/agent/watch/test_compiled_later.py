"""Models that are compiled after `watch`, or whose compiled wrapper is not what is watched."""

import threading

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from calidrift_agent._observe import Gate
from calidrift_agent._observe._plan import TreePlan
from calidrift_agent._vocabulary import CountColumn, DropReason, RequestColumn, Stage, Strategy
from calidrift_agent._watch._taken_in import TAKEN_IN

pytestmark = pytest.mark.usefixtures("fresh_dynamo")

CALLS = 4
STATEFUL = RequestColumn.DROP_FIRST + list(DropReason).index(DropReason.STATEFUL_CALL)
ERRORS = slice(RequestColumn.ERROR_FIRST, RequestColumn.ERROR_FIRST + len(Stage))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(6, 3)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


class Noisy(Net):
    def forward(self, x):
        return super().forward(x) + torch.rand(()) * 0


class Outer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + 1


@pytest.fixture
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net().eval()


@pytest.fixture
def x():
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(1))


def in_place(model, backend="eager"):
    model.compile(backend=backend, fullgraph=True)
    return model


def wrapped(model, backend="eager"):
    return torch.compile(model, backend=backend, fullgraph=True)


def stats():
    return dict(counters["stats"])


def requests(watch):
    return watch.snapshot()[1].requests


def rows_of(x, layer):
    """The maximum of each row at the input of the second layer."""
    with torch.no_grad():
        return torch.relu(layer(x)).amax(1).tolist()


@pytest.mark.parametrize("compiled", [in_place, wrapped])
@pytest.mark.parametrize("first", ["compiled", "watched"])
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_host_compiles_as_without_a_watch_and_its_calls_are_seen(
    net, x, watch_all, compiled, first, rate
):
    with torch.no_grad():
        expected = net(x)
        if first == "compiled":
            served = compiled(net)
            served(x)
            watch = watch_all(getattr(served, "_orig_mod", served), sample_rate=rate)
        else:
            watch = watch_all(net, sample_rate=rate)
            served = compiled(net)
        for _ in range(CALLS):
            assert torch.equal(served(x), expected)
        assert requests(watch)[RequestColumn.SEEN] == CALLS
        watch.close()
        assert torch.equal(served(x), expected)
    assert stats()["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.parametrize("compiled", [in_place, wrapped])
def test_sampled_calls_are_replayed_row_by_row(net, x, watch_all, compiled):
    watch = watch_all(net)
    served = compiled(net)
    with torch.no_grad():
        for _ in range(CALLS):
            served(x)
    report = watch.report()
    assert report.strategy is Strategy.INSTEAD  # of calls that do not come from compiled code
    assert report.observed == report.points == ("first:input", "second:input")
    assert report.observed_calls == CALLS
    assert any("calls came from compiled code" in note for note in report.notes)
    total = watch.snapshot()[1]
    assert float(total.values[1, 1]) in rows_of(x, net.first)
    assert not total.requests[ERRORS].any()


def test_calls_past_the_wrapper_are_observed_too(net, x, watch_all):
    watch = watch_all(net)
    served = wrapped(net)
    with torch.no_grad():
        assert torch.equal(served(x), net(x))
        taps = watch._active.engine.books.observer._tree
        served(x)
    assert taps is None  # they would stand in the way of the compiled code of other threads
    assert requests(watch)[[RequestColumn.SEEN, RequestColumn.OBSERVED]].tolist() == [3, 3]
    assert stats()["unique_graphs"] == 1


def test_compiled_again_while_watched(net, x, watch_all):
    watch = watch_all(in_place(net))
    with torch.no_grad():
        net(x)
        net.compile(backend="eager")  # puts another function where the gate stood
        net(x)
    assert any("was replaced after watch" in note for note in watch.report().notes)


def test_threads_that_serve_compiled_and_eager_calls_at_once(net, x, watch_all):
    watch = watch_all(net)
    served = wrapped(net)
    wrong = []
    with torch.no_grad():
        expected = net(x)
        served(x)

    def work(model):
        with torch.no_grad():
            wrong.extend(not torch.equal(model(x), expected) for _ in range(30))

    threads = [threading.Thread(target=work, args=(one,)) for one in (served, net) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(wrong)
    total = requests(watch)
    assert total[RequestColumn.SEEN] == 122
    assert not total[ERRORS].any()
    assert stats()["unique_graphs"] == 1


def test_what_cannot_be_replayed_is_counted_and_said(x, watch_all):
    model = Noisy().eval()
    watch = watch_all(model)
    model.compile(backend="eager")
    with torch.no_grad():
        for _ in range(CALLS):
            model(x)
    total = requests(watch)
    assert total[[RequestColumn.SEEN, RequestColumn.SAMPLED]].tolist() == [CALLS, CALLS]
    assert total[RequestColumn.OBSERVED] == 0
    assert total[STATEFUL] == CALLS
    notes = watch.report().notes
    assert any("of calls from compiled code, nothing is observed: it draws" in one for one in notes)


def test_without_a_shadow_it_is_said_too(net, x, watch_all):
    watch = watch_all(net)
    watch._active.engine.books.observer.compiled = None  # as for models of other kinds
    net.compile(backend="eager")
    with torch.no_grad():
        net(x)
    assert requests(watch)[[RequestColumn.SEEN, RequestColumn.OBSERVED]].tolist() == [1, 0]
    assert any("close this watch and call watch() on" in note for note in watch.report().notes)


def test_decode_steps_of_compiled_models_belong_to_their_request(watch_all):
    class Decoder(Net):
        def forward(self, x, past_key_values=None, use_cache=True):
            known = () if past_key_values is None else past_key_values
            return super().forward(x), (*known, (x, x))

    model = Decoder().eval()
    watch = watch_all(model)
    served = torch.compile(model, backend="eager")
    with torch.no_grad():
        cache = served(torch.ones(2, 4))[1]
        for _ in range(3):
            cache = served(torch.ones(2, 4), past_key_values=cache)[1]
    total = requests(watch)
    assert total[[RequestColumn.SEEN, RequestColumn.OBSERVED]].tolist() == [1, 1]
    assert total[RequestColumn.STEPS] == 3
    assert not total[ERRORS].any()


@pytest.mark.parametrize("first", ["compiled", "watched"])
@pytest.mark.parametrize("inner", [Net, lambda: nn.Sequential(nn.Linear(4, 3))])
def test_code_taken_into_other_code_is_reported_and_counted(x, watch_all, first, inner, caplog):
    model = inner().eval()
    served = wrapped(Outer(model).eval())
    with torch.no_grad():
        expected = model(x) + 1
        if first == "compiled":
            served(x)
        watch = watch_all(model)
        for _ in range(CALLS):
            assert torch.equal(served(x), expected)
    total = watch.flush().requests
    assert total[RequestColumn.SEEN] == 0
    watch._active.engine.tick()
    assert TAKEN_IN in watch.report().notes
    assert requests(watch)[ERRORS].sum() == 1
    assert "pass the watch unseen" in caplog.text
    assert watch._active.engine.stopped is None


@pytest.mark.parametrize("first", ["compiled", "watched"])
def test_layers_of_torch_itself_are_taken_in_by_their_wrapper(x, watch_all, first):
    model = nn.Sequential(nn.Linear(4, 3)).eval()
    served = wrapped(model)
    with torch.no_grad():
        expected = served(x) if first == "compiled" else model(x)
        watch = watch_all(model)
        if first == "watched":
            served = wrapped(model)
        assert torch.equal(served(x), expected)
    assert requests(watch)[RequestColumn.SEEN] == 0
    assert TAKEN_IN in watch.report().notes
    watch.close()
    with torch.no_grad(), watch_all(served) as better:
        assert torch.equal(served(x), expected)
        assert better.report().observed == ("0:input",)


def test_an_export_of_a_watched_model_is_nothing_to_report(net, x, watch_all):
    watch = watch_all(net)
    torch.export.export(net, (x,), strict=True)
    watch._active.engine.tick()
    assert TAKEN_IN not in watch.report().notes


@pytest.mark.filterwarnings("ignore")  # of transformers and torchao while they are imported
@pytest.mark.slow
def test_generate_of_a_compiled_model_is_observed(watch_all):
    transformers = pytest.importorskip("transformers")
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 20, "n_positions": 32}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(config).eval()
    prompt = torch.tensor([[3, 4, 5]])
    how = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    expected = model.generate(prompt, **how)
    served = torch.compile(model, backend="eager")
    watch = watch_all(served)
    assert torch.equal(served.generate(prompt, **how), expected)
    total = requests(watch)
    assert total[[RequestColumn.SEEN, RequestColumn.OBSERVED]].tolist() == [1, 1]
    assert total[RequestColumn.STEPS] == 4
    assert watch.report().never_fired == ()
    with torch.no_grad():
        served(prompt)
    assert requests(watch)[RequestColumn.SEEN] == 2
    watch.close()
    assert not isinstance(model.__dict__.get("forward"), Gate)
    assert torch.equal(served.generate(prompt, **how), expected)


def test_methods_that_a_wrapper_passes_on_are_observed(x, watch_all):
    class Predictor(Net):
        def predict(self, x):
            return self(x).argmax(1)

    model = Predictor().eval()
    served = wrapped(model)
    watch = watch_all(served)
    with torch.no_grad():
        assert torch.equal(served.predict(x), model(x).argmax(1))
        served(x)
    report = watch.report()
    assert report.strategy is Strategy.BESIDE
    assert requests(watch)[[RequestColumn.SEEN, RequestColumn.OBSERVED]].tolist() == [3, 3]
    assert stats()["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("way", ["in place", "wrapped"])
def test_parts_that_are_compiled_after_the_watch_are_not_compiled_again(watch_all, way):
    torch._dynamo.reset()
    x = torch.ones(3, 4)
    answers, frames = [], []
    for watched in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2)).eval()
        counter = CompileCounter()
        watch = watch_all(model) if watched else None
        if way == "in place":
            model[0].compile(backend=counter)
        else:
            model[0] = torch.compile(model[0], backend=counter)
        with torch.no_grad():
            answers.append([model(x) for _ in range(3)])
        frames.append(counter.frame_count)
        if watch is not None:
            watch.flush()
            report = watch.report()
            assert report.observed_calls == 3
            assert set(report.observed) == set(report.points)
            assert any("compiled" in note for note in report.notes)
            with pytest.raises(RuntimeError):  # once, and unchanged
                model(torch.ones(3, 5))
            watch.close()
    assert frames[0] == frames[1]
    assert all(map(torch.equal, *answers))


@pytest.mark.parametrize("mutant", [False, True])
def test_a_part_that_is_wrapped_between_two_calls_meets_no_tap(watch_all, monkeypatch, mutant):
    """The taps of the call before stood in the very layers that are compiled now."""
    if mutant:
        monkeypatch.setattr(TreePlan, "is_placed", lambda _: True)
    x = torch.ones(3, 4)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2)).eval()
    counter = CompileCounter()
    watch = watch_all(model)
    with torch.no_grad():
        expected = model(x)
        model[0] = torch.compile(model[0], backend=counter)
        assert all(torch.equal(model(x), expected) for _ in range(3))
    rows = watch.snapshot()[1].counts[:, CountColumn.ROWS].tolist()
    told = any("compiled" in note for note in watch.report().notes)
    assert counter.frame_count == 1
    # The call on taps shows all its rows, a replayed one a single row.
    assert (told, len(set(rows)) == 1) == (not mutant, not mutant)
