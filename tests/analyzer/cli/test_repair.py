"""`calidrift recalibrate`, `validate`, `promote` and `rollback`."""

import json
import shutil

import pytest

from calidrift_agent._registry import list_versions, open_version
from calidrift_analyzer.store import Store

CONFIG = """
[analyzer]
database = "store.duckdb"

[models.tiny]
factory = "tiny_user:factory"
example_inputs = "tiny_user:example_inputs"
calibration = "tiny_user:{calibration}"
evaluate = "tiny_user:evaluate"
min_size_ratio = 3.5
coverage_target = 0.9
"""


@pytest.fixture
def tiny(shop, tiny_contract):
    shutil.copy(tiny_contract.root / "tiny_user.py", shop.root)
    shop.configure(CONFIG.format(calibration="calibration"))
    return shop


@pytest.mark.slow
def test_from_recalibration_to_rollback(tiny):
    status, made = tiny.json("recalibrate", "--from", "samples", "--estimator", "absmax")
    assert status == 0
    assert [one["id"] for one in made["candidates"]] == ["samples-absmax"]

    status, out, _ = tiny.run("validate", "tiny")
    assert status == 0
    for told in ("samples-absmax", "FP32 accuracy", "INT8 kernels", "4 of 4", "latency", "Gates"):
        assert told in out

    status, first = tiny.json("promote")
    assert (status, first["action"], first["parent"]) == (0, "promoted", None)
    status, out, _ = tiny.run("promote")
    second = open_version(tiny.root / "registry", "tiny")
    assert status == 0
    assert f"{second.id} serves now" in out
    assert second.parent == first["version"]

    status, back = tiny.json("rollback")
    assert (status, back["version"]) == (0, first["version"])
    assert open_version(tiny.root / "registry", "tiny").id == first["version"]
    status, out, _ = tiny.run("rollback", "--to", second.id)
    assert status == 0

    with Store.open(tiny.root / "store.duckdb") as store:
        moves = [(row.version, row.action) for row in store.outcomes.versions("tiny")]
        assert sorted(moves) == sorted(
            [
                (first["version"], "promoted"),
                (second.id, "promoted"),
                (first["version"], "rolled_back"),
                (second.id, "rolled_back"),
            ]
        )
        (validation,) = store.outcomes.validations("tiny")
        assert validation.accepted
        assert json.loads(validation.document)["kernels"]["layers"][0]["found"] == 1
        assert store.profile(first["profile"]) is not None


@pytest.mark.slow
def test_a_refused_candidate_ends_with_status_1_and_changes_nothing(tiny):
    tiny.configure(CONFIG.format(calibration="by_night"))
    status, out, err = tiny.run("recalibrate", "--from", "samples", "--estimator", "absmax")
    assert status == 0, err
    assert "samples-absmax" in out
    assert "the calibration set alone" in err

    status, judged = tiny.json("validate")
    assert status == 1
    assert not judged["passed"]

    status, promoted = tiny.json("promote")
    assert (status, promoted["error"]["kind"]) == (1, "RefusedError")
    status, out, err = tiny.run("promote")
    assert status == 1
    assert "samples-absmax was refused, nothing was changed" in err
    assert "held-out requests" in err
    assert list_versions(tiny.root / "registry", "tiny") == ()
    assert not (tiny.root / "registry/tiny/current").exists()

    # A new recalibration makes the old validation void.
    tiny.run("recalibrate", "--from", "samples", "--estimator", "absmax")
    status, _, err = tiny.run("promote")
    assert status == 2
    assert "run `calidrift validate tiny`" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["validate"], "run `calidrift recalibrate tiny`"),
        (["promote"], "run `calidrift validate tiny`"),
        (["rollback"], "no version of tiny was promoted"),
        (["recalibrate", "--from", "sketch"], "there are no sketches"),
        (["recalibrate", "--selection", "nothing.json"], "not what `calidrift select` saved"),
        (["recalibrate", "other"], "no model 'other' is declared"),
    ],
)
def test_a_step_that_is_missing_is_named(tiny, words, told):
    status, _, err = tiny.run(*words)

    assert status == 2
    assert told in err
    assert "Traceback" not in err


@pytest.mark.parametrize("content", ["", "[]", '{"candidates": [{"id": 3}]}', "{}"])
def test_a_damaged_list_of_candidates_is_named(tiny, content):
    folder = tiny.root / "registry" / "tiny" / "candidates"
    folder.mkdir(parents=True)
    (folder / "candidates.json").write_text(content)

    status, _, err = tiny.run("validate")

    assert status == 2
    assert "candidates.json" in err


def test_a_selection_for_another_model_is_refused(tiny):
    path = tiny.root / "tiny.selection.json"
    path.write_text(json.dumps({"model": "other", "selected": []}))

    status, _, err = tiny.run("recalibrate", "--from", "samples")

    assert status == 2
    assert "was selected for model 'other', not 'tiny'" in err
