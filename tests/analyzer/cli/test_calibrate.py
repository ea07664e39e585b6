"""`calidrift calibrate`, with real user code in a real child process."""

import pytest

from calidrift_agent import CalibrationProfile


def test_the_profile_is_saved_beside_the_configuration(shop):
    status, out, err = shop.run("calibrate")

    profile = CalibrationProfile.load(shop.root / "shop.profile.json")
    assert status == 0, err
    assert profile.units == 128
    assert list(profile.points) == ["0:input", "2:input"]
    assert "shop: 2 points, 128 units" in out
    assert f"saved as {shop.root / 'shop.profile.json'}" in out
    assert err == ""


def test_the_document_names_file_digest_and_bounds(shop):
    status, document = shop.json("calibrate", "shop", "--output", str(shop.root / "new/p.json"))

    profile = CalibrationProfile.load(shop.root / "new/p.json")
    assert status == 0
    assert document == {
        "model": "shop",
        "profile": str(shop.root / "new/p.json"),
        "digest": profile.digest,
        "units": 128,
        "unobserved": [],
        "points": {name: one.observed_bound.value for name, one in profile.points.items()},
    }


def test_a_higher_rank_gives_a_lower_bound(shop):
    first, third = (shop.json("calibrate", "--rank", rank)[1]["points"] for rank in "13")

    assert all(third[name] < first[name] for name in first)


def test_preprocessing_is_noted(shop):
    text = (shop.root / "calidrift.toml").read_text()
    shop.configure(text + 'preprocessing = "v2"\n')

    shop.run("calibrate")

    saved = CalibrationProfile.load(shop.root / "shop.profile.json")
    assert saved.fingerprint.preprocessing == "v2"


@pytest.mark.parametrize(
    ("old", "new", "words", "told"),
    [
        ("", "", ("calibrate", "shp"), "did you mean 'shop'?"),
        ("", "", ("calibrate", "--rank", "99"), "rank is 99"),
        (":build", ":bild", ("calibrate",), "shop_code has no bild"),
        (":calibration", ":broken", ("calibrate",), "RuntimeError: the disk is gone"),
        ("shop_code:build", "no_code:build", ("calibrate",), "no_code cannot be imported"),
    ],
    ids=["model", "rank", "name", "raises", "module"],
)
def test_a_mistake_is_one_sentence_and_saves_nothing(old, new, words, told, shop):
    text = (shop.root / "calidrift.toml").read_text()
    shop.configure(text.replace(old, new) if old else text)

    status, out, err = shop.run(*words)

    assert status == 2
    assert out == ""
    assert told in err
    assert err.count("\n") == 1
    assert not (shop.root / "shop.profile.json").exists()


def test_debug_shows_what_the_child_wrote(shop):
    text = (shop.root / "calidrift.toml").read_text()
    shop.configure(text.replace(":calibration", ":broken"))

    _, _, err = shop.run("calibrate", "--debug")

    assert "user code talks" in err
    assert "the disk is gone" in err.splitlines()[-1]
