"""`registry_url`: what is taken, and one sentence for what is not."""

import json

import pytest

from calidrift_analyzer.config import ModelContract, load_config
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.records import read_record, record_document

MODEL = """
[models.digits]
factory = "shop.models:build"
example_inputs = "shop.data:example"
calibration = "shop.data:calibration"
evaluate = "shop.score:evaluate"
"""


@pytest.fixture
def load(tmp_path):
    def read(more="", **variables):
        path = tmp_path / "calidrift.toml"
        path.write_text(MODEL + more, encoding="utf-8")
        return load_config(path, variables=variables)

    return read


@pytest.mark.parametrize(
    "url", ["s3://bucket/models", "gs://bucket", "memory://m", "file:///srv/published"]
)
def test_any_store_that_fsspec_knows_is_taken(load, url, tmp_path):
    contract = load(f"registry_url = '{url}/'").model()
    assert contract.registry_url == url
    assert contract.registry == tmp_path / "registry"  # stays the authority
    document = json.loads(json.dumps(record_document(contract)))
    assert read_record(ModelContract, document, source="the request") == contract


def test_without_one_nothing_is_published(load):
    assert load().model().registry_url is None


def test_a_variable_says_so_too(load):
    config = load(CALIDRIFT_MODELS__DIGITS__REGISTRY_URL="s3://bucket/models")
    assert config.model().registry_url == "s3://bucket/models"


@pytest.mark.parametrize(
    ("more", "given"),
    [
        ("registry_url = '/srv/models'", "'/srv/models'"),
        ("registry_url = ''", "''"),
        ("registry_url = 3", "3"),
        ("registry_url = 'nowhere://bucket'", "'nowhere://bucket'"),
        ("registry_url = 'simplecache::s3://bucket'", "'simplecache::s3://bucket'"),
    ],
)
def test_what_cannot_be_a_url_is_told_in_one_sentence(load, more, given):
    with pytest.raises(ConfigurationError) as caught:
        load(more)
    assert str(caught.value).endswith(
        f"models.digits.registry_url is {given}; allowed is a URL that fsspec knows, such as "
        "'s3://bucket/models', without a password (the store's own package takes it from the "
        "environment): correct it"
    )


def test_a_password_in_it_is_refused_and_not_repeated(load):
    with pytest.raises(ConfigurationError, match="without a password") as caught:
        load("registry_url = 'sftp://eve:hunter22@host/models'")
    assert "hunter22" not in str(caught.value)


def test_a_url_as_the_folder_is_refused(load):
    with pytest.raises(ConfigurationError) as caught:
        load("registry = 's3://bucket/models'")
    assert str(caught.value).endswith(
        "models.digits.registry is 's3://bucket/models'; allowed is a path; a relative one in a "
        "file starts at that file's folder, and the URL where versions are published is "
        "registry_url: correct it"
    )


def test_the_service_looks_as_often_as_it_is_told(load):
    assert load("[service]\npublish_seconds = 5.0\n").service.publish_seconds == 5.0
    with pytest.raises(ConfigurationError, match=r"service\.publish_seconds is -1"):
        load("[service]\npublish_seconds = -1.0\n")
