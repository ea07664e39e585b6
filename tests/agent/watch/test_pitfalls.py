"""What an agent in a process must not do there, and what nothing else here would notice."""

import ast
import inspect
import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module

import calidrift_agent

SOURCES = sorted(Path(inspect.getfile(calidrift_agent)).parent.rglob("*.py"))
SERVING = [
    path
    for path in SOURCES
    if path.parent.name in {"_attach", "_observe", "_taps", "_watch", "_native"}
]
GLOBAL_HOOKS = [
    name for name in vars(torch_module) if name.startswith("_global_") and "hook" in name
]


@pytest.fixture
def used(net, x, watch_all):
    """A watch that has observed eager and compiled calls, and was drained."""
    watch = watch_all(net)
    with torch.no_grad():
        net(x)
        torch.compile(net, backend="eager")(x)
    watch.flush()
    yield watch
    torch._dynamo.reset()


def called(path):
    """Last names of everything that a source calls or looks up."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name)
    }


def test_no_hook_is_registered_for_all_modules(used):
    assert len(GLOBAL_HOOKS) >= 5
    assert not any(getattr(torch_module, name) for name in GLOBAL_HOOKS)


def test_no_hook_is_registered_at_all(net, x, watch_all, monkeypatch):
    for name in ("register_forward_hook", "register_forward_pre_hook"):
        monkeypatch.setattr(nn.Module, name, lambda *_, **__: pytest.fail("registered"))
    watch = watch_all(net)
    net(x)
    assert watch.report().observed_calls == 1


def test_no_operation_is_added_to_torch(used):
    names = torch._C._dispatch_get_all_op_names()
    assert "aten::linear" in names
    assert not any("calidrift" in name for name in names)


def test_settings_of_the_process_stay_as_they_are(net, x, watch_all):
    def settings():
        return (
            torch._dynamo.eval_frame._stance.stance,
            torch._dynamo.config.skip_nnmodule_hook_guards,
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
        )

    before = settings()
    watch = watch_all(net)
    net(x)
    watch.flush()
    assert settings() == before
    watch.close()
    assert settings() == before


@pytest.mark.parametrize("path", SERVING, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_nothing_slow_or_global_is_used_while_serving(path):
    # Reductions that are 5 to 60 times slower than others for the same figure, and switches that
    # hold for all threads.
    forbidden = {"histc", "frexp", "set_stance", "synchronize", "set_sync_debug_mode"}
    assert not called(path) & forbidden


def test_the_search_would_find_them():
    path = next(one for one in SOURCES if one.name == "_eager.py" and "_calibrate" in one.parts)
    assert "set_stance" in called(path)  # of a calibration, not of a server


def test_cuda_is_not_touched(net, x, watch_all, monkeypatch):
    # A process that touched CUDA cannot fork workers that use it.
    for name in ("is_available", "device_count", "_lazy_init", "current_stream", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: pytest.fail("asked for CUDA"))
    watch = watch_all(net)
    net(x)
    watch.flush()
    watch.close()


def test_no_thread_before_the_first_call(net, x, watch_all):
    before = set(threading.enumerate())
    watch = watch_all(net)
    assert set(threading.enumerate()) == before
    net(x)
    assert len(set(threading.enumerate()) - before) == 1
    watch.close()
    assert set(threading.enumerate()) == before


def test_no_graph_is_kept_alive(net, x, watch_all):
    watch = watch_all(net)
    given = x.clone().requires_grad_()
    net(given).sum().backward()
    total = watch.flush()
    assert total.counts.dtype == "int64"  # float32 stops counting at 2^24
    assert given.grad is not None
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("path", SERVING, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_copy_is_left_under_way(path):
    # Its reader would have to wait for the device first.
    assert "non_blocking" not in path.read_text(encoding="utf-8")
