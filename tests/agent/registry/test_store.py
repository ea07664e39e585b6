"""A registry behind a URL: what is refused, and one kind of error for whatever a store raises."""

import hashlib
import sys
from pathlib import Path

import pytest

from calidrift_agent._registry import Pointer, RegistryStore, VersionLayout, check_url, is_url
from calidrift_agent.errors import ConfigurationError, RegistryError, RegistryUnreachableError

POINTER = Pointer("000001-0123456789abcdef", "0123456789abcdef" * 4)
OTHER = Pointer("000002-abababababababab", "ab" * 32)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(params=["faulty", "file"])
def store(request, faulty, tmp_path):
    url = "faulty://bucket/models/" if request.param == "faulty" else f"file://{tmp_path}/models"
    return RegistryStore(url, "net")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "model.pt2"
    path.write_bytes(b"model" * 1000)
    return path


def test_an_empty_store_names_nothing(store):
    assert store.pointer() is None
    place = store.place(POINTER.version, "model.pt2")
    assert store.read(place) is None
    assert store.size(place) is None
    assert not store.holds(place, sha256(b""), 0)


def test_what_is_sent_is_there(store, source):
    place = store.place(POINTER.version, "model.pt2")
    content = source.read_bytes()
    for _ in range(2):  # in place of what is there
        store.send(source, place)
    assert store.read(place) == content
    assert store.size(place) == len(content)
    assert store.holds(place, sha256(content), len(content))
    assert not store.holds(place, sha256(content), len(content) - 1)
    assert not store.holds(place, sha256(b"other"), len(content))


def test_the_pointer_is_replaced(store, source):
    for pointer in (POINTER, OTHER):
        store.point(pointer)
        assert store.pointer() == pointer


def test_a_folder_that_is_published_to_is_a_registry(tmp_path, source):
    store = RegistryStore(f"file://{tmp_path}/models", "net")
    store.send(source, store.place(POINTER.version, "model.pt2"))
    store.point(POINTER)

    layout = VersionLayout(tmp_path / "models", "net")
    assert layout.identities() == [POINTER.version]
    assert sorted(one.name for one in layout.root.iterdir()) == ["current", "versions"]


@pytest.mark.parametrize("content", [b"", b"{", POINTER.to_json().encode()[:-4], b"\xff"])
def test_a_pointer_that_was_not_written_to_its_end_names_nothing(faulty, content):
    store = RegistryStore("faulty://bucket", "net")
    faulty.objects["/bucket/net/current"] = content
    with pytest.raises(RegistryError, match="faulty://bucket/net/current is damaged"):
        store.pointer()


@pytest.mark.parametrize("call", ["pointer", "size", "holds", "send", "point"])
def test_whatever_a_store_raises_is_one_kind_of_error(faulty, source, call):
    store = RegistryStore("faulty://bucket", "net")
    place = store.place(POINTER.version, "model.pt2")
    calls = {
        "pointer": store.pointer,
        "size": lambda: store.size(place),
        "holds": lambda: store.holds(place, sha256(b"x"), 1),
        "send": lambda: store.send(source, place),
        "point": lambda: store.point(POINTER),
    }
    faulty.fail_at = 1
    with pytest.raises(RegistryUnreachableError, match=r"ConnectionError: the store hung up") as it:
        calls[call]()
    assert "\n" not in str(it.value)


def test_a_bucket_that_is_not_there_cannot_be_written(faulty, source, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise FileNotFoundError("The specified bucket does not exist")

    store = RegistryStore("faulty://bucket", "net")
    monkeypatch.setattr(faulty, "put_file", refuse)
    with pytest.raises(RegistryUnreachableError, match="bucket does not exist"):
        store.send(source, store.place(POINTER.version, "model.pt2"))


def test_object_stores_are_not_asked_for_folders(faulty, source, monkeypatch):
    from fsspec import asyn

    monkeypatch.setattr(asyn, "AsyncFileSystem", faulty)
    monkeypatch.setattr(faulty, "makedirs", lambda *args, **kwargs: pytest.fail("a new bucket"))
    store = RegistryStore("faulty://bucket", "net")
    store.send(source, store.place(POINTER.version, "model.pt2"))
    store.point(POINTER)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("/srv/models", "'/srv/models' is not the URL of a registry; allowed is one that fsspec"),
        ("s3://", "'s3://' is not the URL of a registry"),
        ("s3://a b", "is not the URL of a registry"),
        ("simplecache::s3://bucket", "chained URLs may hold an old pointer"),
        ("sftp://eve:secret@host/models", "must not hold a password"),
    ],
)
def test_what_cannot_be_a_url_is_refused(url, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["sftp://eve@host/models", "abfs://box@account.dfs.core.windows.net/m", "memory://m"]
)
def test_users_and_containers_are_no_passwords(url):
    assert check_url(url + "/") == url


def test_a_path_is_no_url():
    assert not is_url(Path("/srv/models"))
    assert not is_url(None)


def test_an_unknown_store_is_refused():
    with pytest.raises(ConfigurationError, match="fsspec knows no store 'nowhere'; allowed are"):
        RegistryStore("nowhere://bucket", "net")


def test_a_store_whose_package_is_missing_is_refused(monkeypatch):
    import fsspec

    def missing(protocol):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(ConfigurationError, match="not installed here: Install s3fs to access S3"):
        RegistryStore("s3://bucket", "net")


def test_without_fsspec_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigurationError, match=r"install the extra 'remote'.*calidrift\[remote]"):
        RegistryStore("s3://bucket", "net")


def test_where_a_folder_is_meant_a_url_is_refused():
    with pytest.raises(ConfigurationError, match=r"s3://bucket is a URL, and here .* a folder"):
        VersionLayout("s3://bucket", "net")
