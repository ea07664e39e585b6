"""What `evaluate` may return."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from calidrift_analyzer.contract import Evaluation
from calidrift_analyzer.errors import ContractError


@pytest.mark.parametrize(
    "correct",
    [
        [True, False, True, True],
        np.array([1.0, 0.0, 1.0, 1.0]),
        torch.tensor([1, 0, 1, 1]),
        (0.75,) * 4,
    ],
)
def test_the_metric_is_the_mean_of_the_scores(correct):
    evaluation = Evaluation(correct=correct)

    assert evaluation.metric == 0.75
    assert evaluation.scores.shape == (4,)
    assert Evaluation(0.75, correct).metric == 0.75


def test_without_labels_there_is_nothing_to_say():
    evaluation = Evaluation()

    assert evaluation.metric is None
    assert evaluation.scores is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"metric": 0.9}, "has a metric but no `correct`"),
        ({"metric": 0.9, "correct": [True, False]}, "the metric must be that mean"),
        ({"correct": []}, "at least one"),
        ({"correct": [[True], [False]]}, r"shape \(2, 1\)"),
        ({"correct": [0.5, 2.0]}, "outside 0 ... 1"),
        ({"correct": [0.5, float("nan")]}, "outside 0 ... 1"),
        ({"correct": ["a", "b"]}, "not an array of numbers"),
        ({"correct": [True, True], "segments": ["day"]}, "1 segments for 2 samples"),
        ({"correct": [True, True], "groups": [1, 2, 3]}, "3 groups for 2 samples"),
    ],
)
def test_anything_else_is_one_sentence(arguments, told):
    with pytest.raises(ContractError, match=told):
        Evaluation(**arguments)


def test_the_face_gives_its_lazy_name_and_no_others():
    from calidrift_analyzer import contract, recalibrate

    assert contract.UserCode.__name__ == "UserCode"
    assert recalibrate.Evaluation is Evaluation
    for face in (contract, recalibrate):
        assert all(getattr(face, name) for name in face.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        contract.nothing  # noqa: B018


def test_a_parent_needs_no_torch_for_the_contract():
    code = (
        "import sys; import calidrift_analyzer.recalibrate as face; face.Evaluation(correct=[1]);"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 0, ended.stderr
