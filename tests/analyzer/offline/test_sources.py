import pytest

from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.offline import find_sources


def test_a_folder_is_searched_with_all_below_it_by_name(tmp_path):
    names = ("b/night/x.npz", "a.npy", "b/c.safetensors", "d.safetensors.fernet")
    for name in (*names, "readme.md", ".hidden.npy", "b/e.pt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = find_sources(tmp_path)
    assert [(one.name, one.folder) for one in found] == [
        ("a.npy", ""),
        ("b/c.safetensors", "b"),
        ("b/night/x.npz", "b/night"),
        ("d.safetensors.fernet", ""),
    ]
    assert all(one.path.is_absolute() for one in found)


def test_a_single_file(tmp_path):
    path = tmp_path / "a.npy"
    path.touch()
    (found,) = find_sources(path)
    assert (found.name, found.folder) == ("a.npy", "")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing", "does not exist"),
        ("empty", "holds no recorded inputs"),
        ("model.pt", "is of another kind"),
    ],
)
def test_what_holds_none_is_refused_in_one_sentence(tmp_path, name, told):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    (tmp_path / "model.pt").touch()
    with pytest.raises(ConfigurationError, match=told) as caught:
        find_sources(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
