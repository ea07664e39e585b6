"""Profiles as text and files: exact, atomic, and clear about what is wrong."""

import json
import os
import stat
import subprocess
import sys

import pytest

from calidrift_agent._profile import CalibrationProfile, Fingerprint, PointProfile
from calidrift_agent.errors import ConfigurationError, ProfileError, ProfileFormatError


def test_round_trip_is_exact(full, tmp_path):
    path = tmp_path / "profile.json"
    full.save(path)
    again = CalibrationProfile.load(path)
    assert again == full
    assert again.digest == full.digest
    assert list(again.points) == list(full.points)
    assert again.to_json() == full.to_json() == path.read_text("utf-8")


def test_the_text_is_plain_json_with_format_and_version(full):
    content = json.loads(full.to_json())
    assert (content["format"], content["version"]) == ("calidrift-profile", 1)
    assert content["digest"] == full.digest


def test_sketches_are_sparse(full):
    (point,) = [one for one in json.loads(full.to_json())["points"] if one["name"] == "fc:input"]
    sketch = full.points["fc:input"].sketch
    assert len(point["sketch"]["cells"]) == int((sketch.cells > 0).sum())


def test_saving_replaces_the_old_file_and_leaves_nothing_else(full, observed, tmp_path):
    path = tmp_path / "profile.json"
    observed.save(path)
    full.save(path)
    assert CalibrationProfile.load(path) == full
    assert list(tmp_path.iterdir()) == [path]
    assert not stat.S_IMODE(path.stat().st_mode) & 0o133


@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_a_failed_save_keeps_the_old_file(full, observed, tmp_path, monkeypatch, failing):
    path = tmp_path / "profile.json"
    observed.save(path)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(ProfileError, match="No space left on device"):
        full.save(path)
    monkeypatch.undo()
    assert CalibrationProfile.load(path) == observed
    assert list(tmp_path.iterdir()) == [path]


def test_saving_into_a_missing_directory_is_one_sentence(full, tmp_path):
    with pytest.raises(ProfileError, match="choose a directory"):
        full.save(tmp_path / "missing" / "profile.json")


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ProfileError, match=r"nothing\.json cannot be read"):
        CalibrationProfile.load(tmp_path / "nothing.json")


def test_every_truncation_is_refused(observed, tmp_path):
    path = tmp_path / "profile.json"
    text = observed.to_json().rstrip("\n")
    for length in [0, 1, *range(2, len(text), 997), len(text) - 1]:
        path.write_text(text[:length], "utf-8")
        with pytest.raises(ProfileFormatError, match=r"profile\.json"):
            CalibrationProfile.load(path)


def test_any_changed_digit_is_refused(observed):
    text = observed.to_json()
    place = text.index('"value":') + len('"value":')
    digit = next(index for index in range(place, len(text)) if text[index] in "12345678")
    changed = text[:digit] + str(int(text[digit]) + 1) + text[digit + 1 :]
    with pytest.raises(ProfileFormatError):
        CalibrationProfile.from_json(changed)


def edited(profile, change) -> str:
    content = json.loads(profile.to_json())
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=3), "install a newer calidrift"),
        (lambda c: c.update(version="1"), "a version is a number"),
        (lambda c: c.update(version=True), "a version is a number"),
        (lambda c: c.update(version=0), "a version is a number"),
        (lambda c: c.update(format="other"), "not a Calidrift profile"),
        (lambda c: c.pop("format"), "not a Calidrift profile"),
        (lambda c: c.pop("digest"), "digest is missing"),
        (lambda c: c.update(digest="00"), "damaged or was edited"),
        (lambda c: c.update(units="many"), 'units is "many", but must be a whole number'),
        (lambda c: c.update(units=2.5), "whole number"),
        (lambda c: c.update(units=True), "whole number"),
        (lambda c: c.update(units=-1), "0 or more"),
        (lambda c: c.update(instrument="guess"), "must be one of range, clip"),
        (lambda c: c.update(created="yesterday"), "ISO 8601"),
        (lambda c: c.update(created="2030-01-31T12:00:00"), "ISO 8601"),
        (lambda c: c.update(points={}), "must be a list"),
        (lambda c: c["points"].append(3), r"points\[4\] is 3, but must be an object"),
        (lambda c: c["points"].append(c["points"][0]), "two points of one name"),
        (lambda c: c["points"][0].pop("aliases"), r"points\[0\]\.aliases is missing"),
        (lambda c: c["points"][0].update(aliases=[1]), "must hold texts only"),
        (lambda c: c["points"][0].update(name=""), "without a name"),
        (lambda c: c["points"][3].update(rail_low_rate=1.5), "between 0 and 1"),
        (lambda c: c["points"][3].update(rail_low_rate="x"), "must be a number"),
        (lambda c: c["points"][3]["clip_bound"].update(scale=0), "above 0"),
        (lambda c: c["points"][3]["clip_bound"].update(hi=10**400), "not a finite number"),
        (lambda c: c["points"][3]["clip_bound"].update(lo=1e9), "must be finite and rising"),
        (lambda c: c["points"][3]["observed_bound"].update(value=None), "must be a number"),
        (lambda c: c["points"][3]["observed_bound"].update(rank=9), "the rank must be 1 up to"),
        (lambda c: c["points"][3]["observed_bound"].update(rank=1), "not of rank 1"),
        (lambda c: c["points"][3]["sketch"].update(cells=[[9999, 1]]), "cell"),
        (lambda c: c["points"][3]["sketch"].update(cells=[[1, -1]]), "count"),
        (lambda c: c["points"][3]["sketch"].update(cells=[[True, 1]]), "pairs of a cell"),
        (lambda c: c["points"][3]["sketch"].update(cells=[[5, 2**62], [6, 2**62]]), r"2\*\*63"),
        (lambda c: c["points"][3]["sketch"].update(max=10**400), "an extreme"),
        (lambda c: c["points"][3].update(name="\ud800"), "UTF-8"),
        (lambda c: c["points"][3]["clip_bound"].update(dtype="\ud800"), "digest"),
        (lambda c: c["fingerprint"].update(data="\ud800"), "UTF-8"),
        (lambda c: c["points"][3].update(sketch=[1] * 100), "must be an object"),
        (lambda c: c["fingerprint"].update(versions={"a": 1}), "must hold texts only"),
        (lambda c: c.update(fingerprint=None), "must be an object"),
    ],
)
def test_wrong_contents_are_named(full, change, message):
    with pytest.raises(ProfileFormatError, match=message):
        CalibrationProfile.from_json(edited(full, change))


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_are_not_json_are_refused(full, constant):
    text = full.to_json().replace('"units":2,', f'"units":{constant},', 1)
    with pytest.raises(ProfileFormatError, match="not a JSON number"):
        CalibrationProfile.from_json(text)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "[" * 100_000, '"text"', "\x00"])
def test_foreign_text_is_refused(text):
    with pytest.raises(ProfileFormatError):
        CalibrationProfile.from_json(text)


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(ProfileFormatError, match="not UTF-8"):
        CalibrationProfile.load(path)


def test_an_enormous_file_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(ProfileFormatError, match="larger than 1 GiB"):
        CalibrationProfile.load(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ProfileFormatError, match="a pipe or a device"):
        CalibrationProfile.load(tmp_path / "pipe")


def test_paths_that_cannot_be_paths_are_one_sentence(full):
    for call in (CalibrationProfile.load, full.save):
        with pytest.raises(ProfileError, match="null"):
            call("a\0b")


def test_a_name_may_be_as_long_as_the_file_system_allows(full, tmp_path):
    path = tmp_path / ("n" * 255)
    full.save(path)
    assert CalibrationProfile.load(path) == full
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["\ud800", 3])
def test_what_a_file_could_not_say_is_refused_when_it_is_made(text):
    for make in (
        lambda: PointProfile(text),
        lambda: PointProfile("a", aliases=(text,)),
        lambda: Fingerprint(data=text),
        lambda: Fingerprint(versions={"torch": text}),
    ):
        with pytest.raises(ConfigurationError, match="UTF-8"):
            make()


def test_the_package_loads_without_torch():
    code = (
        "import sys, calidrift_agent._profile\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
