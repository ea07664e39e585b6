"""Every way in which user code can misbehave is one sentence that names it."""

import dataclasses
import sys
import textwrap

import pytest
import torch
from safetensors.torch import save_file

from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.contract import Split, UserCode
from calidrift_analyzer.errors import ContractError

CODE = """
import torch
from torch import nn
from calidrift_analyzer.recalibrate import Evaluation

VALUE = 3

class Namespace:
    @staticmethod
    def factory():
        return nn.Linear(2, 2)

def factory():
    return nn.Linear(2, 2)

def inputs():
    return (torch.zeros(3, 2),)

def bare_inputs():
    return torch.zeros(3, 2)

def batches():
    yield torch.zeros(4, 2)
    yield (torch.ones(1, 2),)

def evaluate(model, split):
    assert not torch.is_grad_enabled()
    return Evaluation(correct=[True, split == "gate"])

def raises(*args):
    raise ValueError("first line\\nsecond line")

def silent(*args):
    raise KeyError

def leaves(*args):
    raise SystemExit(4)

def nothing(*args):
    return None

def breaks_off():
    yield torch.zeros(1, 2)
    raise RuntimeError("the disk is gone")
"""


@pytest.fixture
def contract(tmp_path, monkeypatch):
    name = f"user_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(CODE))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield ModelContract(
        name="net",
        root=tmp_path,
        factory=f"{name}:factory",
        example_inputs=f"{name}:inputs",
        calibration=f"{name}:batches",
        evaluate=f"{name}:evaluate",
        registry=tmp_path / "registry",
    )
    sys.modules.pop(name, None)


def change(contract, **functions):
    module = contract.factory.partition(":")[0]
    return dataclasses.replace(
        contract, **{key: f"{module}:{value}" for key, value in functions.items()}
    )


def test_the_four_callables_are_called(contract):
    code = UserCode(contract)

    model = code.model()
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert code.example_inputs()[0].shape == (3, 2)
    assert len(list(code.calibration())) == 2
    assert code.evaluate(model, Split.GATE).metric == 1.0
    assert code.evaluate(model, Split.REPORT).metric == 0.5


def test_attributes_of_attributes_and_bare_tensors_are_understood(contract):
    code = UserCode(change(contract, factory="Namespace.factory", example_inputs="bare_inputs"))

    assert isinstance(code.model(), torch.nn.Linear)
    assert isinstance(code.example_inputs(), tuple)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_are_loaded_from_either_kind_of_file(contract, tmp_path, suffix):
    state = {"weight": torch.full((2, 2), 5.0), "bias": torch.zeros(2)}
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)

    model = UserCode(dataclasses.replace(contract, weights=path)).model()

    assert torch.equal(model.weight, state["weight"])


@pytest.mark.parametrize("content", [None, b"rubbish", {"weight": torch.zeros(9, 9)}])
def test_weights_that_do_not_fit_are_named(contract, tmp_path, content):
    path = tmp_path / "weights.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save_file(content, path)

    with pytest.raises(ContractError, match=r"weights\.safetensors cannot be loaded into Linear"):
        UserCode(dataclasses.replace(contract, weights=path)).model()


def test_a_pickle_is_never_executed(contract, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    path = tmp_path / "weights.pt"
    torch.save({"weight": Evil()}, path)

    with pytest.raises(ContractError, match="cannot be loaded"):
        UserCode(dataclasses.replace(contract, weights=path)).model()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("no_such_module_at_all:f", "the module no_such_module_at_all cannot be imported"),
        ("{}:missing", "has no missing"),
        ("{}:factory.deeper", "has no factory.deeper"),
        ("{}:VALUE", "is a int, but must be callable"),
        ("broken_module:f", r"cannot be imported \(ZeroDivisionError"),
        ("leaving_module:f", r"cannot be imported \(SystemExit"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(contract, tmp_path, reference, told):
    (tmp_path / "broken_module.py").write_text("1 / 0")
    (tmp_path / "leaving_module.py").write_text("import sys; sys.exit(3)")
    reference = reference.format(contract.factory.partition(":")[0])

    with pytest.raises(ContractError, match=told) as caught:
        UserCode(dataclasses.replace(contract, evaluate=reference))
    assert reference in str(caught.value)


@pytest.mark.parametrize("function", ["raises", "silent", "leaves", "nothing"])
@pytest.mark.parametrize("key", ["factory", "example_inputs", "calibration", "evaluate"])
def test_a_callable_that_raises_or_answers_nonsense_is_named(contract, key, function):
    code = UserCode(change(contract, **{key: function}))
    calls = {
        "factory": code.model,
        "example_inputs": code.example_inputs,
        "calibration": lambda: list(code.calibration()),
        "evaluate": lambda: code.evaluate(torch.nn.Identity(), Split.SELECT),
    }

    with pytest.raises(ContractError, match=rf"^{key} \(.*:{function}\)") as caught:
        calls[key]()
    told = str(caught.value)
    assert "\n" not in told
    assert {
        "raises": "raised ValueError",
        "silent": "raised KeyError",
        "leaves": "raised SystemExit",
        "nothing": "NoneType",
    }[function] in told


def test_a_calibration_set_that_breaks_off_is_named(contract):
    batches = UserCode(change(contract, calibration="breaks_off")).calibration()

    next(batches)
    with pytest.raises(ContractError, match=r"calibration .*the disk is gone"):
        next(batches)
