"""Folders of jobs, after a service that could not tidy up."""

from calidrift_analyzer.jobs import job_folder
from calidrift_analyzer.service._leftovers import remove_leftovers


def test_only_folders_of_jobs_that_have_ended_are_removed(site):
    net, other = site.config.models["net"], site.config.models["other"]
    site.post("/jobs", {"model": "net"})
    site.wait("awaiting_approval")
    site.post("/jobs/1/cancel")
    site.post("/jobs", {"model": "net"})
    site.wait("awaiting_approval", 2)
    folders = {
        "ended": job_folder(net, 1),
        "open": job_folder(net, 2),
        "unknown": job_folder(net, 77),
        "no job": job_folder(net, 1).with_name("notes"),
        "of another model": job_folder(other, 1),
    }
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / "model.pt2").write_bytes(b"int8")

    site.run(lambda store: remove_leftovers(store, site.config))

    assert [name for name, folder in folders.items() if not folder.exists()] == ["ended"]


def test_a_database_that_is_away_does_not_keep_the_service_from_starting(
    make_site, monkeypatch, caplog
):
    site = make_site()
    monkeypatch.setattr(site.service.owner, "_available", False)
    monkeypatch.setattr(site.service.worker, "start", lambda: None)
    monkeypatch.setattr(site.service.schedule, "start", lambda: None)

    site.service.start()

    assert "what ended jobs left could not be removed" in caplog.text
