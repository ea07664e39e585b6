"""How the agent keeps out of what torch compiles."""

import subprocess
import sys
import threading

import pytest
import torch

from calidrift_agent._observe._frames import (
    SEES_COMPILED_CALLS,
    apart,
    as_before,
    came_from_compiled,
    compiler_of_frames,
    not_compiled,
)

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def host(x):
    return x + 1


@not_compiled
def gate(work, x):
    return apart(work, x)


def in_compiled_code(work, x):
    """Call the gate as compiled code of a host does: by a frame of Python that it enters."""
    return torch.compile(gate, backend="eager")(work, x)


def test_this_version_of_torch_has_what_is_needed():
    assert SEES_COMPILED_CALLS
    assert compiler_of_frames() is None
    assert not came_from_compiled()


def test_the_agents_work_is_not_compiled_and_the_hosts_is():
    seen = []

    def work(x):
        seen.append((compiler_of_frames(), came_from_compiled()))
        own = x * 3  # would be a graph of its own
        found = as_before(host, (), (x,), {})
        seen.append((compiler_of_frames(), came_from_compiled()))
        return found, own

    found, own = in_compiled_code(work, torch.ones(2))
    assert found.tolist() == [2.0, 2.0]
    assert own.tolist() == [3.0, 3.0]
    assert seen == [(None, True), (None, True)]
    assert graphs() == 1
    assert compiler_of_frames() is None
    assert not came_from_compiled()


def test_the_hosts_code_is_under_its_compiler_and_not_the_agents_call():
    seen = []

    @not_compiled
    def looks(x):
        seen.append((compiler_of_frames() is not None, came_from_compiled()))
        return x

    in_compiled_code(lambda x: as_before(looks, (), (x,), {}), torch.ones(2))
    assert seen == [(True, False)]


def test_everything_is_as_before_after_an_error():
    def fails(x):
        raise ValueError("host")

    with pytest.raises(ValueError, match="host"):
        in_compiled_code(lambda x: as_before(fails, (), (x,), {}), torch.ones(2))
    assert compiler_of_frames() is None
    assert not came_from_compiled()


def test_without_compiled_code_nothing_is_set():
    assert apart(lambda: came_from_compiled()) is False
    assert as_before(lambda *args, **kwargs: (args, kwargs), (1,), (2,), {"a": 3}) == (
        (1, 2),
        {"a": 3},
    )


def test_a_thread_has_its_own_state():
    seen = []

    def work(x):
        other = threading.Thread(target=lambda: seen.append(came_from_compiled()))
        other.start()
        other.join()
        seen.append(came_from_compiled())
        return x

    in_compiled_code(work, torch.ones(2))
    assert seen == [False, True]


WITHOUT = """
import torch
frames = torch._C._dynamo.eval_frame
mark = frames.set_code_exec_strategy
del frames.set_code_exec_strategy
from torch import nn
import calidrift_agent as calidrift
from calidrift_agent._observe import SEES_COMPILED_CALLS

assert not SEES_COMPILED_CALLS
frames.set_code_exec_strategy = mark  # torch itself needs it


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x)


options = calidrift.WatchOptions(budget=None, drain_seconds=3600, window_seconds=86400, seed=0)
net, x = Net().eval(), torch.ones(2, 4)
with torch.no_grad():
    expected = net(x)
    with calidrift.watch(net, name="net", sample_rate=1.0, options=options) as watch:
        assert torch.equal(net(x), expected)
        assert watch.report().observed_calls == 1
    from calidrift_agent._attach import AttachRequest, plan_attachment

    served = torch.compile(net, backend="eager")
    assert plan_attachment(AttachRequest(served, None, options)).seat.owner is served
print("done")
"""


@pytest.mark.slow
def test_another_version_of_torch_sees_less_and_breaks_nothing():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split() == ["done"], done.stderr
