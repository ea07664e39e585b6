import copy
import threading

import pytest
import torch
from torch import nn

from calidrift_agent._observe._gate import Gate
from calidrift_agent._observe._twin import Twin, TwinError, is_compiled, is_wrapper
from calidrift_agent._points import discover


class Recorder:
    def __init__(self):
        self.seen = []

    def observe_input(self, point, args, kwargs):
        self.seen.append((point, (args or tuple(kwargs.values()))[0]))

    def observe(self, point, value):
        self.seen.append((point, value))


def net():
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).eval()


def twin_of(live):
    return Twin(live, discover(live, outputs=True).points)


def test_parameters_are_shared_and_all_else_is_its_own():
    live = net()
    twin = twin_of(live)
    assert list(map(id, twin.module.parameters())) == list(map(id, live.parameters()))
    shared = {id(one) for one in live.buffers()} & {id(one) for one in twin.module.buffers()}
    assert not shared
    assert not {id(one) for one in live.modules()} & {id(one) for one in twin.module.modules()}
    assert not any("forward" in one.__dict__ for one in live.modules())


def test_it_runs_as_the_original_and_its_taps_write_to_the_recorder_of_the_pass():
    live = net()
    twin, recorder, x = twin_of(live), Recorder(), torch.randn(4, 3)
    with torch.no_grad():
        assert torch.equal(twin.run((x,), {}, None), live(x))
        assert torch.equal(twin.run((x,), {}, recorder), live(x))
    assert [point for point, _ in recorder.seen] == [0, 1, 2, 3]
    assert recorder.seen[0][1] is x
    with pytest.raises(RuntimeError):
        twin.run((torch.ones(1, 4),), {}, recorder)
    assert twin.pen.recorder is None


def test_writes_to_buffers_are_followed():
    live = net()
    twin = twin_of(live)
    before = twin.versions()
    with torch.no_grad():
        live[1].running_mean.add_(1.0)
    assert twin.is_current()
    assert not torch.equal(twin.module[1].running_mean, live[1].running_mean)
    twin.follow()
    assert torch.equal(twin.module[1].running_mean, live[1].running_mean)
    assert twin.versions() != before
    before = twin.versions()
    twin.follow()
    assert twin.versions() == before


def test_buffers_that_do_not_count_writes_are_copied_each_time():
    live = net()
    with torch.inference_mode():
        live[1].running_mean = torch.zeros(3)
        twin = twin_of(live)
        live[1].running_mean.add_(2.0)
        twin.follow()
        assert torch.equal(twin.module[1].running_mean, live[1].running_mean)


def assign(live):
    live[0].weight = nn.Parameter(torch.zeros(3, 3))


CHANGES = {
    "attribute": lambda live: setattr(live[0], "out_features", 7),
    "new attribute": lambda live: setattr(live, "scale", 2.0),
    "mode": lambda live: live.train(),
    "parameter": assign,
    "loaded": lambda live: live.load_state_dict(copy.deepcopy(live.state_dict()), assign=True),
    "type": lambda live: live.double(),
    "module": lambda live: live.__setitem__(0, nn.Linear(3, 3)),
    "added": lambda live: live.append(nn.ReLU()),
    "hook": lambda live: live[0].register_forward_pre_hook(lambda *_: None),
    "class": lambda live: setattr(live[0], "__class__", type("Other", (nn.Linear,), {})),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_original_is_noticed(change):
    live = net()
    twin = twin_of(live)
    assert twin.is_current()
    CHANGES[change](live)
    if change == "type":  # the same parameters, of another type
        assert not twin.is_current() or twin.module[0].weight.dtype is torch.float64
    else:
        assert not twin.is_current()


def test_what_a_watch_puts_in_is_no_change():
    live = net()
    twin = twin_of(live)
    gate = Gate(live)
    gate.attach()
    assert twin.is_current()
    assert not isinstance(twin_of(live).module.__dict__.get("forward"), Gate)
    gate.detach()


@pytest.mark.parametrize("way", ["wrapped part", "in place", "forward"])
def test_compiled_parts_run_eagerly(way):
    live = net()
    x = torch.ones(2, 3)
    expected = live(x)
    eager = copy.deepcopy(live)
    if way == "wrapped part":
        live[0] = torch.compile(live[0], backend="eager")
        assert is_wrapper(live[0])
    elif way == "in place":
        live[0].compile(backend="eager")
    else:
        live[0].forward = torch.compile(live[0].forward, backend="eager")
    assert is_compiled(live[0])
    assert not is_compiled(eager[0])
    twin = twin_of(live)
    assert [name for name, _ in twin.module.named_modules()] == [
        name for name, _ in eager.named_modules()
    ]
    assert not any(is_compiled(module) for module in twin.module.modules())
    recorder = Recorder()
    assert torch.equal(twin.run((x,), {}, recorder), expected)
    assert len(recorder.seen) == 4


def test_a_wrapper_in_a_wrapper():
    inner = nn.Sequential(torch.compile(nn.Linear(3, 3), backend="eager"))
    live = nn.Sequential(torch.compile(inner, backend="eager"))
    recorder, x = Recorder(), torch.ones(1, 3)
    assert torch.equal(Twin(live, discover(live).points).run((x,), {}, recorder), live(x))
    assert len(recorder.seen) == 1


def test_a_foreign_compiled_forward_cannot_be_copied():
    live = net()
    live.forward = torch.compile(net().forward, backend="eager")
    with pytest.raises(TwinError, match="not a method of its own"):
        twin_of(live)


def test_what_cannot_be_copied_is_an_error():
    live = net()
    live.lock = threading.Lock()
    with pytest.raises(TwinError, match="cannot be copied"):
        twin_of(live)


def test_a_copy_that_is_the_original_is_none():
    class Single(nn.Linear):
        def __deepcopy__(self, memo):
            return self

    with pytest.raises(TwinError, match="original itself"):
        twin_of(Single(2, 2))


def test_a_disabled_function_is_not_compiled():
    live = net()
    live.forward = torch.compiler.disable(live.forward)
    assert not is_compiled(live)
