"""The comparison of two outputs against independent arithmetic."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from calidrift_agent._observe._compare import (
    ComparisonError,
    compare_outputs,
    copy_row,
    first_tensor,
)


@dataclass
class Output:
    label: str
    logits: torch.Tensor


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("decibels", "dtype"),
    [(60.0, torch.float64), (60.0, torch.float32), (10.0, torch.float32), (30.0, torch.float16)],
    ids=str,
)
def test_noise_of_known_energy_is_recovered(decibels, dtype):
    signal = torch.randn(1, 1000, generator=generator(), dtype=torch.float64)
    noise = torch.randn(1, 1000, generator=generator(1), dtype=torch.float64)
    noise *= signal.norm() / noise.norm() * 10 ** (-decibels / 20)
    found = compare_outputs((signal + noise).to(dtype), signal.to(dtype))
    assert -10 * np.log10(found.noise) == pytest.approx(decibels, abs=0.02)


def test_the_cosine_is_that_of_numpy():
    one, other = torch.randn(2, 1, 7, generator=generator(2)).double().numpy()
    cosine = float(one[0] @ other[0] / np.linalg.norm(one) / np.linalg.norm(other))
    found = compare_outputs(torch.from_numpy(one), torch.from_numpy(other))
    assert 1 - 2 * found.distance == pytest.approx(cosine, abs=1e-12)
    opposite = compare_outputs(torch.tensor([[-2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    assert (opposite.distance, opposite.noise, opposite.agreed) == (1.0, 1.0, False)


def test_noise_is_a_bounded_loss():
    found = compare_outputs(torch.full((1, 3), 1e30), torch.tensor([[1.0, 2.0, 3.0]]))
    assert found.noise == 1.0
    assert 0.0 < found.distance < 0.5


@pytest.mark.parametrize(
    ("served", "reference", "noise", "distance"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0]], 0.0, 0.0),
        ([[0.0, 0.0]], [[0.0, 0.0]], 0.0, 0.0),
        ([[0.0, 0.0]], [[3.0, 4.0]], 1.0, 0.5),
        ([[3.0, 4.0]], [[0.0, 0.0]], 1.0, 0.5),
        ([[float("nan"), 4.0]], [[3.0, 4.0]], 1.0, 0.5),
        ([[float("inf"), 4.0]], [[3.0, 4.0]], 1.0, 0.5),
    ],
    ids=["equal", "both zero", "served zero", "reference zero", "nan", "inf"],
)
def test_corners(served, reference, noise, distance):
    found = compare_outputs(torch.tensor(served), torch.tensor(reference))
    assert (found.noise, found.distance) == (noise, distance)
    # Of these, only equal outputs are known to agree, and zeros, where the first class wins.
    assert found.agreed is (noise == 0.0)


def test_what_is_not_finite_in_the_reference_is_left_out():
    masked = float("-inf")
    found = compare_outputs(torch.tensor([[1.0, masked, 2.5]]), torch.tensor([[1.0, masked, 2.0]]))
    assert found.noise == pytest.approx(0.25 / 5.0)
    assert found.agreed is True
    with pytest.raises(ComparisonError, match="no finite value"):
        compare_outputs(torch.ones(1, 2), torch.full((1, 2), float("nan")))


def test_outputs_of_other_shapes_are_not_compared():
    with pytest.raises(ComparisonError, match=r"\(1, 3\).*\(1, 4\)"):
        compare_outputs(torch.ones(1, 3), torch.ones(1, 4))


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 5, 1)])
def test_an_output_without_classes_says_nothing_about_agreement(shape):
    assert compare_outputs(torch.ones(shape), torch.ones(shape)).agreed is None


def test_the_place_is_chosen_among_all_of_them():
    """Ten tokens of which three disagree: the share over all places is exactly 0.7."""
    reference = torch.eye(4)[torch.arange(10) % 4][None]
    served = reference.clone()
    served[0, [2, 5, 9]] = served[0, [2, 5, 9]].roll(1, -1)
    places = [(place + 0.5) / 10 for place in range(10)]
    agreed = [compare_outputs(served, reference, position=one).agreed for one in places]
    assert [not one for one in agreed] == [place in (2, 5, 9) for place in range(10)]
    assert compare_outputs(served, reference, position=0.9999999999999999).agreed is False


def test_the_first_tensor_is_found_in_order():
    wanted = torch.ones(2, 3)
    other = torch.zeros(2, 3)
    assert first_tensor(wanted) is wanted
    assert first_tensor((torch.ones(2, dtype=torch.long), [wanted, other])) is wanted
    assert first_tensor({"loss": torch.tensor(1.0), "logits": wanted, "hidden": other}) is wanted
    assert first_tensor(Output("cat", wanted)) is wanted
    assert first_tensor(torch.Size([1, 2])) is None
    assert first_tensor([None, "text", 1.5, torch.ones(0, 3)]) is None
    assert first_tensor(torch.eye(2).to_sparse()) is None
    assert first_tensor(torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged)) is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_outputs_of_transformers_are_looked_through():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    logits = torch.ones(2, 3)
    found = outputs.SequenceClassifierOutput(loss=torch.tensor(0.5), logits=logits)
    assert first_tensor(found) is logits


@pytest.mark.parametrize(
    ("shape", "rows", "unit", "expected"),
    [
        ((4, 3), 4, 2, slice(2, 3)),
        ((8, 3), 4, 2, slice(4, 6)),  # two entries per row
        ((5, 3), 4, 2, slice(0, 5)),  # shared by all rows
        ((4,), 4, 3, slice(3, 4)),
    ],
)
def test_a_row_of_an_output_is_copied(shape, rows, unit, expected):
    output = torch.randn(shape, generator=generator(), requires_grad=True)
    found = copy_row({"logits": output}, rows, unit)
    assert torch.equal(found, output[expected])
    assert not found.requires_grad
    assert found.untyped_storage().data_ptr() != output.untyped_storage().data_ptr()
    assert copy_row("text", rows, unit) is None


def check(compare):
    """Hold a comparison against numpy on outputs of every kind."""
    random = np.random.default_rng(11)
    for scale in (1e-3, 0.3, 1.0, 40.0):
        for _ in range(20):
            reference = random.normal(size=(1, 4)) * 3.0
            served = reference + random.normal(size=(1, 4)) * scale
            found = compare(torch.from_numpy(served), torch.from_numpy(reference))
            difference = float(((served - reference) ** 2).sum() / (reference**2).sum())
            lengths = np.linalg.norm(served) * np.linalg.norm(reference)
            assert found.noise == pytest.approx(min(difference, 1.0), rel=1e-9)
            assert found.distance == pytest.approx(
                (1 - (served @ reference.T).item() / lengths) / 2, abs=1e-12
            )
            assert found.agreed == (served.argmax() == reference.argmax())


def test_the_oracle():
    check(compare_outputs)


@pytest.mark.parametrize(
    "mutant",
    [
        lambda one, other: compare_outputs(other, one),  # noise against the served energy
        lambda one, other: replace(compare_outputs(one, other), noise=unbounded(one, other)),
        lambda one, other: replace(
            compare_outputs(one, other), noise=compare_outputs(one, other).noise ** 0.5
        ),
        lambda one, other: replace(
            compare_outputs(one, other), distance=2 * compare_outputs(one, other).distance
        ),
        lambda one, other: replace(
            compare_outputs(one, other), agreed=bool(one.argmin() == other.argmin())
        ),
        lambda one, other: replace(compare_outputs(one, other), agreed=True),
    ],
    ids=["other energy", "unbounded", "amplitudes", "distance", "least likely", "always"],
)
def test_the_oracle_catches_a_mutant(mutant):
    with pytest.raises(AssertionError):
        check(mutant)


def unbounded(one, other):
    return float((one - other).square().sum() / other.square().sum())
