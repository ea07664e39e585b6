"""A watched model can be copied, pickled and given back exactly as it was."""

import copy
import gc
import inspect
import io
import pickle
import weakref

import pytest
import torch
from torch import nn

from calidrift_agent._observe import Gate
from calidrift_agent._vocabulary import RequestColumn
from calidrift_agent._watch import watch
from calidrift_agent.errors import AttachError


def seen(watch):
    return int(watch.snapshot()[1].requests[RequestColumn.SEEN])


def is_watched(model):
    return any(
        isinstance(module.__dict__.get("forward"), Gate) for module in model.modules()
    ) or any("calidrift" in type(value).__module__ for value in vars(model).values())


def test_close_restores_the_model_exactly(net, x, watch_all):
    before = {name: dict(module.__dict__) for name, module in net.named_modules()}
    order = list(net.__dict__)
    watch = watch_all(net)
    assert "forward" in net.__dict__
    net(x)
    watch.close()
    assert {name: dict(module.__dict__) for name, module in net.named_modules()} == before
    assert list(net.__dict__) == order
    net(x)
    assert seen(watch) == 1
    watch.close()


def test_close_restores_a_forward_of_the_instance(net, x, watch_all):
    net.forward = own = lambda x: type(net).forward(net, x) + 1
    expected = net(x)
    watch = watch_all(net)
    assert torch.equal(net(x), expected)
    assert watch.report().observed_calls == 1
    watch.close()
    assert net.__dict__["forward"] is own


def test_what_was_put_on_top_stays(net, x, watch_all):
    watch = watch_all(net)
    gate = net.forward
    net.forward = lambda x: gate(x) * 2
    assert torch.equal(net(x), type(net).forward(net, x) * 2)
    report = watch.report()
    assert report.active
    assert any("was replaced" in note for note in report.notes)
    watch.close()
    assert torch.equal(net(x), type(net).forward(net, x) * 2)
    assert seen(watch) == 1


def test_a_deep_copy_is_unwatched_and_works(net, x, watch_all):
    watch = watch_all(net)
    twin = copy.deepcopy(net)
    assert not is_watched(twin)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2.0)
    assert not torch.equal(twin(x), net(x))
    assert torch.equal(twin(x), type(net).forward(twin, x))
    assert seen(watch) == 1
    third = copy.deepcopy(twin)
    assert torch.equal(third(x), twin(x))
    assert third.forward.__self__ is third
    second = watch_all(twin)
    twin(x)
    assert (seen(watch), seen(second)) == (1, 1)


def test_the_gate_alone_can_be_copied(net, x, watch_all):
    watch_all(net)
    forward = copy.deepcopy(net.forward)
    assert torch.equal(forward(x), net(x))
    assert forward.__self__ is not net


@pytest.mark.parametrize("save", ["pickle", "torch.save"])
def test_a_pickled_model_is_unwatched_and_works(net, x, watch_all, save):
    watch = watch_all(net)
    expected = net(x)
    buffer = io.BytesIO()
    if save == "pickle":
        pickle.dump(net, buffer)
        buffer.seek(0)
        twin = pickle.load(buffer)
    else:
        torch.save(net, buffer)
        buffer.seek(0)
        twin = torch.load(buffer, weights_only=False)
    assert not is_watched(twin)
    assert b"calidrift_agent" not in buffer.getvalue()
    assert torch.equal(twin(x), expected)
    assert seen(watch) == 1
    assert watch.report().active


def test_the_state_dict_does_not_know_the_watch(net, watch_all):
    before = list(net.state_dict())
    watch_all(net)
    assert list(net.state_dict()) == before


@pytest.mark.parametrize("how", ["copy", "pickle"])
def test_copies_made_while_a_call_is_observed(x, watch_all, how):
    class Copying(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(50, 2)

        def forward(self, x):
            assert "forward" in self.fc.__dict__ or not watched
            copies.append(copy.deepcopy(self.fc) if how == "copy" else pickle.dumps(self.fc))
            return self.fc(x.flatten(1))

    copies, watched = [], True
    model = Copying()
    watch = watch_all(model)
    expected = model(x)
    twin = copies[0] if how == "copy" else pickle.loads(copies[0])
    watch.close()
    watched = False
    assert torch.equal(twin(x.flatten(1)), expected)
    assert "calidrift" not in type(twin.forward).__module__


def test_quantized_graphs_can_be_copied_and_saved(tiny_int8, copy_graph, watch_all):
    graph = copy_graph(tiny_int8.graph)
    watch = watch_all(graph)
    with torch.no_grad():
        expected = graph(tiny_int8.example)
        twin = copy_graph(graph)
        assert torch.equal(twin(tiny_int8.example), expected)
    assert not isinstance(twin.__dict__.get("forward"), Gate)
    assert seen(watch) == 1


def test_traced_modules_can_be_copied_and_pickled(net, x, watch_all):
    graph = torch.fx.symbolic_trace(net)
    watch = watch_all(graph)
    expected = graph(x)
    for twin in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert torch.equal(twin(x), expected)
        assert not isinstance(twin.__dict__.get("forward"), Gate)
    assert seen(watch) == 1


def test_the_forward_looks_like_the_models_own(net, watch_all):
    signature = inspect.signature(net.forward)
    watch_all(net)
    assert inspect.signature(net.forward) == signature
    assert net.forward.__name__ == "forward"
    assert net.forward.__func__ is type(net).forward
    assert net.forward.__self__ is net
    with pytest.raises(AttributeError):
        _ = net.forward.nothing_of_this_name


def test_watching_twice_is_an_error(net, x, watch_all):
    watch = watch_all(net)
    with pytest.raises(AttachError, match="watched already; close the other watch first"):
        watch_all(net)
    watch.close()
    assert watch_all(net).report().active


def test_a_forgotten_watch_goes_on(net, x):
    handle = watch(net, name="net", sample_rate=1.0)
    engine = weakref.ref(handle._active.engine)
    del handle
    gc.collect()
    net(x)
    assert engine() is not None
    assert engine().snapshot()[1].requests[RequestColumn.OBSERVED] == 1
    engine().close()


def test_a_forgotten_model_takes_watch_and_thread_with_it(net, x, tmp_path):
    from calidrift_agent._state import StateReader

    handle = watch(net, name="net", sample_rate=1.0, state_dir=tmp_path)
    net(x)
    engine = weakref.ref(handle._active.engine)
    thread = handle._active.engine._thread._thread
    model = weakref.ref(net)
    path = handle.report().state_file
    del handle, net
    # The fixture holds the model too: its reference is in this frame's arguments only.
    gc.collect()
    assert thread.is_alive()
    if model() is None:
        thread.join(5)
        assert engine() is None
        assert not StateReader.open(path).alive


def test_a_watch_is_a_context_manager(net, x):
    with watch(net, name="net", sample_rate=1.0) as one:
        net(x)
        assert repr(one) == "<Watch of 'net': active>"
    assert "forward" not in net.__dict__
    assert "closed" in repr(one)
    assert one.flush().requests.sum() >= 0
    assert one.report().observed_calls == 1
