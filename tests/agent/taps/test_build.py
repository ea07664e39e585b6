"""The build of the native tap: optional, and silent where it cannot be made."""

import importlib.util
import os
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from types import SimpleNamespace

import pytest

from calidrift_agent._taps import _native

ROOT = Path(__file__).parents[3]
HOOK = ROOT / "agent" / "build_native.py"


def loaded(name, path, loader=None):
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def hook():
    return loaded("build_native", HOOK)


@pytest.fixture(scope="module")
def built(hook, tmp_path_factory):
    if hook.find_compiler() is None:
        pytest.skip("no compiler here")
    return hook.build(into=tmp_path_factory.mktemp("built"))


def test_it_compiles_and_fits_this_version(built):
    module = loaded("_tap", built, ExtensionFileLoader("_tap", str(built)))
    assert module.PROTOCOL == _native.PROTOCOL
    assert {"Strip", "Tap", "arm", "disarm", "setup"} <= set(dir(module))


@pytest.mark.parametrize(
    "variables",
    [
        {**os.environ, "CALIDRIFT_NO_NATIVE": "1"},
        {"PATH": "/nowhere"},
        {**os.environ, "CC": "no-such-compiler"},
        {**os.environ, "CC": "false"},
    ],
    ids=["switched off", "no compiler", "unknown compiler", "compiler that fails"],
)
def test_without_a_compiler_nothing_is_left(hook, tmp_path, variables):
    stale = tmp_path / hook.NAME
    stale.write_bytes(b"older")
    assert hook.build(into=tmp_path, variables=variables) is None
    assert not list(tmp_path.iterdir())


def test_a_source_that_does_not_compile_is_no_error(hook, tmp_path):
    (tmp_path / "bad.c").write_text("this is not C")
    assert hook.build(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["bad.c"]


def data():
    return {"artifacts": []}


def test_a_wheel_says_what_it_is_for(hook, monkeypatch):
    shared = hook.FOLDER / hook.NAME
    for result in (shared, None):
        monkeypatch.setattr(hook, "build", lambda _, result=result: result)
        given = data()
        self = SimpleNamespace(target_name="wheel", root=str(ROOT))
        hook.NativeTapHook.initialize(self, "standard", given)
        if result is None:
            assert given == data()
        else:
            assert given["tag"].startswith("cp311-abi3-linux")
            assert given["pure_python"] is False
            assert given["artifacts"] == ["/agent/calidrift_agent/_taps/_native/_tap.abi3.so"]


def test_a_source_distribution_builds_nothing(hook, monkeypatch):
    monkeypatch.setattr(hook, "build", lambda _: pytest.fail("built"))
    given = data()
    hook.NativeTapHook.initialize(SimpleNamespace(target_name="sdist"), "standard", given)
    assert given == data()
