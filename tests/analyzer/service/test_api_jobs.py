"""Orders and decisions over HTTP: who may do what, and what is told."""

import pytest

from calidrift_analyzer.records import JobState


def test_from_an_order_to_a_promotion(site):
    ordered = site.post("/jobs", {"model": "net", "note": "it drifted"})
    waiting = site.wait("awaiting_approval")
    approved = site.post("/jobs/1/approve", {"note": "fine"})
    done = site.wait("promoted")

    assert (ordered.status_code, ordered.json()["job"], ordered.json()["new"]) == (202, 1, True)
    assert waiting["report"] == {"model": "net"}
    assert waiting["job"]["progress"] is None
    assert approved.status_code == 200
    assert done["job"]["approved_by"] == "local"
    assert done["job"]["finished"]
    assert done["report"] == waiting["report"], "it stays where it is after the approval"
    assert [step["event"] for step in done["steps"]].count("approved") == 1
    audit = site.get("/audit").json()["items"]
    assert [(one["action"], one["actor"]) for one in audit] == [
        ("promoted", "local"),
        ("approve", "local"),
        ("recalibration", "local"),
    ]


def test_a_running_job_tells_how_far_it_is_and_can_be_cancelled(site):
    site.stages.hold = JobState.RECALIBRATING
    site.post("/jobs", {"model": "net"})
    site.wait("recalibrating")

    cancelled = site.post("/jobs/1/cancel", {"note": "enough"})

    assert cancelled.status_code == 200
    ended = site.wait("cancelled")
    assert ended["job"]["cancel_requested"]


def test_progress_is_live(site):
    site.stages.hold = JobState.SELECTING
    site.post("/jobs", {"model": "net"})
    site.wait("selecting")
    for _ in range(3_000):
        found = site.get("/jobs").json()["items"][0]["progress"]
        if found is not None and found["done"] == 2:
            break
    site.stages.hold = None

    assert (found["what"], found["done"], found["total"]) == ("at work", 2, 3)


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/jobs", {"model": "nobody"}, 404, "no model 'nobody' is configured"),
        ("/jobs", {"model": "net", "code": "os"}, 422, "body.code"),
        ("/jobs", {}, 422, "body.model: Field required"),
        ("/jobs/7/approve", {}, 404, "there is no job 7"),
        ("/jobs/0/approve", {}, 422, "path.job"),
        ("/jobs/99999999999999999999/cancel", {}, 422, "path.job"),
        ("/models/nobody/rollback", {}, 404, "no model 'nobody' is configured"),
        ("/models/net/rollback", {}, 409, "no version of net was promoted"),
        ("/models/net/rollback", {"to": "../../etc"}, 409, "no version of net was promoted"),
        ("/freezes", {"frozen": True, "model": "nobody"}, 404, "no model 'nobody' is configured"),
    ],
)
def test_what_cannot_be_done_is_a_problem_in_one_sentence(path, body, status, sentence, site):
    answer = site.post(path, body)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert (found["status"], found["type"]) == (status, "about:blank")
    assert sentence in found["detail"]


def test_a_second_order_and_a_second_approval_are_refused_with_409(site):
    site.post("/jobs", {"model": "net"})
    site.wait("awaiting_approval")

    second = site.post("/jobs", {"model": "net"})
    site.stages.hold = JobState.AWAITING_APPROVAL
    site.post("/jobs/1/approve")
    again = site.post("/jobs/1/approve")

    assert (second.status_code, again.status_code) == (409, 409)
    assert "one job at a time" in second.json()["detail"]
    assert "was approved by local" in again.json()["detail"]
    site.stages.hold = None
    site.wait("promoted")


def test_the_freeze_switch_stops_everything_until_it_is_turned_back(site):
    frozen = site.post("/freezes", {"frozen": True, "note": "audit week"})
    refused = site.post("/jobs", {"model": "net"})
    back = site.post("/models/net/rollback")
    overview = site.get("/models/net").json()
    site.post("/freezes", {"frozen": False})
    allowed = site.post("/jobs", {"model": "net"})

    assert frozen.json()["frozen"]
    assert refused.status_code == back.status_code == 409
    assert "every model was frozen by local: audit week" in refused.json()["detail"]
    assert overview["frozen"]["note"] == "audit week"
    assert allowed.status_code == 202
    assert [one["frozen"] for one in site.get("/freezes").json()] == [False]


def test_lists_come_in_pages_whose_cursors_say_nothing_wrong(site):
    for number in range(5):
        site.post("/freezes", {"frozen": bool(number % 2)})
    first = site.get("/audit", params={"limit": 2}).json()
    second = site.get("/audit", params={"limit": 2, "cursor": first["next"]}).json()
    third = site.get("/audit", params={"limit": 2, "cursor": second["next"]}).json()

    entries = [one["entry"] for page in (first, second, third) for one in page["items"]]
    assert entries == [5, 4, 3, 2, 1]
    assert third["next"] is None


@pytest.mark.parametrize("cursor", ["%", "bm90YW51bWJlcg", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "é"])
@pytest.mark.parametrize("path", ["/audit", "/jobs", "/models/net/captures"])
def test_a_cursor_that_no_page_gave_is_refused(path, cursor, site):
    answer = site.get(path, params={"cursor": cursor})

    assert answer.status_code == 400
    assert "leave it out for the first page" in answer.json()["detail"]


def test_what_a_job_selected_is_listed(site):
    site.post("/jobs", {"model": "net"})
    site.wait("awaiting_approval")

    [listed] = site.get("/models/net/selections").json()["items"]
    one = site.get(f"/models/net/selections/{listed['id']}").json()

    assert (listed["name"], listed["word"], listed["document"]) == ("1", "selected", None)
    assert one["document"] == {}
    assert site.get("/models/other/selections").json()["items"] == []


def test_a_defect_is_a_problem_too_and_tells_nothing(site, monkeypatch, caplog):
    monkeypatch.setattr(site.service, "context", lambda: 1 / 0)

    answer = site.get("/models")

    assert answer.status_code == 500
    assert answer.json()["detail"] == "a defect of Calidrift; its log has the traceback"
    assert "ZeroDivisionError" in caplog.text
