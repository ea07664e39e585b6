"""`export`: the files of the repository, anywhere, and never over something else unasked."""

from calidrift_analyzer.config import GrafanaConfig
from calidrift_analyzer.dashboards import Format, artefacts


def test_export_writes_all_files_and_needs_no_grafana(command, tmp_path):
    status, document, _ = command("export", "--to", "out", "--json")

    assert status == 0
    expected = artefacts(GrafanaConfig(), Format.FILES)
    assert set(document["files"]) == set(document["written"]) == set(expected)
    for name, text in expected.items():
        assert (tmp_path / "out" / name).read_text(encoding="utf-8") == text


def test_export_as_manifests(command, tmp_path):
    assert command("export", "--format", "configmap")[0] == 0

    found = sorted(path.name for path in (tmp_path / "dashboards/kubernetes").iterdir())
    assert "kustomization.yaml" in found
    assert len(found) == 7


def test_export_again_says_that_all_is_right(command):
    command("export")

    status, out, _ = command("export")

    assert status == 0
    assert out == "0 files written to dashboards, 8 as they should be\n"


def test_export_replaces_nothing_unasked(command, tmp_path):
    target = tmp_path / "dashboards/grafana/fleet.json"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"\xff mine")

    status, _, err = command("export")

    assert status == 2
    assert "fleet.json would be replaced; give --force" in err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [target]
    assert command("export", "--force")[0] == 0


def test_export_into_a_file(command, tmp_path):
    (tmp_path / "out").write_text("", encoding="utf-8")

    assert command("export", "--to", "out")[0] == 2
    status, _, err = command("export", "--to", "out", "--force")

    assert status == 2
    assert "cannot be written" in err
    assert "--to" in err


def test_export_uses_the_configuration(command, tmp_path, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_GRAFANA__PAGE_URL", "https://page.example.org")

    command("export")

    text = (tmp_path / "dashboards/grafana/model.json").read_text(encoding="utf-8")
    assert "https://page.example.org" in text


def test_an_unknown_format_is_a_usage_error(command):
    assert command("export", "--format", "helm")[0] == 2
    assert command("import")[0] == 2
