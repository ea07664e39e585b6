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
    assert profile.fingerprint.preprocessing != "v2"

    text = (shop.root / "calidrift.toml").read_text()
    shop.configure(text + 'preprocessing = "v2"\n')
    _, third = shop.json("calibrate", "--rank", "3")

    lower = {name for name, bound in third["points"].items() if bound < document["points"][name]}
    assert lower == set(document["points"]), "a higher rank gives a lower bound"
    saved = CalibrationProfile.load(shop.root / "shop.profile.json")
    assert saved.fingerprint.preprocessing == "v2"


@pytest.mark.parametrize(
    ("old", "new", "words", "told"),
    [
        ("", "", ("calibrate", "shp"), "did you mean 'shop'?"),
        ("", "", ("calibrate", "--rank", "99"), "rank is 99"),
        (":build", ":bild", ("calibrate",), "shop_code has no bild"),
        (":calibration", ":broken", ("calibrate",), "RuntimeError: the disk is gone"),
    ],
    ids=["model", "rank", "name", "raises"],
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
