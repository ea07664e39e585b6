"""The demo's folder: a working configuration, and nobody else's files."""

import importlib.util
import os

import pytest

from calidrift_analyzer.config import load_config
from calidrift_analyzer.demo import DigitsContract
from calidrift_analyzer.demo._workdir import MODEL, Workdir
from calidrift_analyzer.errors import ConfigurationError


def test_a_new_folder_holds_a_configuration_that_loads(tmp_path):
    workdir = Workdir.prepare(tmp_path / "a" / "b", seed=7)

    config = load_config(workdir.config, variables={})
    contract = config.model()
    assert contract.name == MODEL
    assert contract.seed == 7
    assert config.database == workdir.root / "calidrift.duckdb"
    assert config.state_dirs == (workdir.state,)
    assert contract.weights == workdir.weights
    assert contract.registry == workdir.root / "registry"


def test_the_contract_module_gives_the_four_callables(tmp_path):
    workdir = Workdir.prepare(tmp_path / "demo", seed=7)

    config = load_config(workdir.config, variables={})
    module, _, _ = config.model().factory.partition(":")
    spec = importlib.util.spec_from_file_location(module, workdir.root / f"{module}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)

    (expected,) = DigitsContract(7).example_inputs()
    (given,) = found.example_inputs()
    assert given.equal(expected)
    assert all(callable(getattr(found, name)) for name in ("factory", "calibration", "evaluate"))


def test_an_earlier_demo_is_replaced_but_not_a_file_of_somebody_else(tmp_path):
    first = Workdir.prepare(tmp_path, seed=0)
    old = [first.root / "calidrift.duckdb", first.result, first.plot.with_suffix(".png")]
    old += [first.state / "x.state", first.root / "registry" / "digits" / "current"]
    for path in old:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")

    second = Workdir.prepare(tmp_path, seed=1)

    assert not [path for path in old if path.exists()]
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert load_config(second.config, variables={}).model().seed == 1


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years", encoding="utf-8")

    with pytest.raises(
        ConfigurationError, match=r"not of an earlier demo \(thesis\.tex\).*--workdir"
    ):
        Workdir.prepare(tmp_path, seed=0)

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="cannot be used"):
        Workdir.prepare(tmp_path / "file", seed=0)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)

    with pytest.raises(ConfigurationError, match="Permission denied"):
        Workdir.prepare(tmp_path / "demo", seed=0)
