"""What people and dashboards read: figures of the store, and absence where there are none."""

import pytest


@pytest.fixture
def drifted(site, traffic):
    site.meta, site.profile, site.windows = site.record(traffic)
    site.service.tasks.assess()
    return site


def test_before_anything_was_recorded_every_model_says_so(site):
    found = site.get("/models").json()

    assert [one["model"] for one in found] == ["net", "other"]
    assert found[0]["verdict"] is None
    assert found[0]["sentence"] == "net has not been assessed yet"
    assert found[0]["request_coverage"] is None
    assert site.get("/models/net/points").json() == []
    series = site.get("/models/net/series")
    assert (series.status_code, series.json()["status"]) == (404, 404)


def test_one_sentence_and_its_figures_per_model(drifted):
    found = drifted.get("/models/net").json()

    assert found["verdict"] == "drifted_harmful"
    assert found["profile"] == drifted.profile.digest
    assert found["points"] == 2
    assert found["units"] == 240
    assert 0.3 < found["request_coverage"] < 0.7
    assert found["worst_point"] in {"a:input", "b:input"}
    assert found["worst_sqnr_change_db"] < -6
    assert found["alarm"] is not None
    assert found["muted"] is None


def test_points_come_worst_first(drifted):
    points = drifted.get("/models/net/points").json()

    assert len(points) == 2
    assert points[0]["sqnr_change_db"] <= points[1]["sqnr_change_db"]
    assert points[0]["coverage"] == pytest.approx(1 - points[0]["exceedance"])


def test_a_series_shows_when_it_began(drifted):
    asked = {"hours": 10 / 3600, "slices": 10, "measure": "exceedance"}

    series = drifted.get("/models/net/series", params=asked).json()

    assert series["step_seconds"] == 1.0
    assert len(series["starts"]) == 10
    assert {one["point"] for one in series["points"]} == {"a:input", "b:input"}
    for point in series["points"]:
        told = [value for value in point["values"] if value is not None]
        assert len(point["values"]) == 10
        assert len(told) == len(drifted.windows)
        assert told[:3] == [0.0] * 3
        assert all(value > 0.9 for value in told[3:])


def test_a_series_of_coverage_is_the_other_side_of_exceedance(drifted):
    asked = {"hours": 10 / 3600, "slices": 10, "point": "a:input"}

    left = drifted.get("/models/net/series", params={**asked, "measure": "coverage"}).json()
    right = drifted.get("/models/net/series", params={**asked, "measure": "exceedance"}).json()

    [one], [other] = left["points"], right["points"]
    assert [v is None for v in one["values"]] == [v is None for v in other["values"]]
    for a, b in zip(one["values"], other["values"], strict=True):
        assert a is None or a == pytest.approx(1 - b)


def test_a_series_of_sqnr_falls_with_the_drift(drifted):
    asked = {"hours": 10 / 3600, "slices": 10, "measure": "sqnr_change"}

    series = drifted.get("/models/net/series", params=asked).json()

    for point in series["points"]:
        told = [value for value in point["values"] if value is not None]
        assert all(abs(value) < 2 for value in told[:3])
        assert all(value < -6 for value in told[3:])


def test_clipped_energy_is_measured_not_predicted(drifted):
    asked = {"hours": 10 / 3600, "slices": 10, "measure": "clipped_energy"}

    [point, _] = drifted.get("/models/net/series", params=asked).json()["points"]

    told = [value for value in point["values"] if value is not None]
    assert told[:3] == [0.0] * 3
    assert all(0.1 < value < 1 for value in told[3:])


def test_a_histogram_shows_calibration_beside_production(drifted):
    found = drifted.get("/models/net/histogram", params={"point": "a:input"}).json()

    bars = found["bars"]
    assert found["elements"] == 6 * 40 * 16
    assert [one["high"] for one in bars[:-1]] == [one["low"] for one in bars[1:]]
    assert sum(one["production"] for one in bars) == pytest.approx(1.0)
    assert sum(one["calibration"] for one in bars) == pytest.approx(1.0)
    above = [one for one in bars if one["low"] >= 1.0]
    assert sum(one["calibration"] for one in above) == 0.0
    assert sum(one["production"] for one in above) > 0.2
    assert found["clip_lo"] < 0 < found["clip_hi"] < found["highest"]
    assert found["observed_bound"] <= 1.0
    missing = drifted.get("/models/net/histogram", params={"point": "z"})
    assert missing.status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/models/nobody",
        "/models/nobody/points",
        "/models/nobody/series",
        "/models/nobody/captures",
        "/models/nobody/assessments",
        "/models/nobody/versions",
        "/models/net/validations/3",
        "/models/net/versions/3",
        "/jobs/3",
        "/nothing",
    ],
)
def test_what_is_not_there_is_404(path, site):
    answer = site.get(path)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_decisions_are_told_with_their_documents(site):
    from calidrift_analyzer.records import ValidationRow, VersionRow

    def work(store):
        for number in range(3):
            store.outcomes.record_validation(
                ValidationRow(
                    model="net",
                    candidate=f"c{number}",
                    created_ns=1_800_000_000 * 10**9,
                    accepted=number > 0,
                    document=f'{{"n": {number}}}',
                )
            )
        store.outcomes.record_version(
            VersionRow(
                model="net",
                version="000001-a",
                action="promoted",
                created_ns=1,
                profile="p",
                document="{}",
            )
        )

    site.run(work)
    page = site.get("/models/net/validations", params={"limit": 2}).json()
    rest = site.get("/models/net/validations", params={"cursor": page["next"]}).json()
    first = rest["items"][0]
    one = site.get(f"/models/net/validations/{first['id']}").json()

    assert [item["name"] for item in page["items"]] == ["c2", "c1"]
    assert [item["word"] for item in rest["items"]] == ["refused"]
    assert first["document"] is None
    assert one["document"] == {"n": 0}
    assert one["created"] == "2027-01-15T08:00:00Z"
    assert site.get("/models/net/versions").json()["items"][0]["word"] == "promoted"


def test_a_mute_stands_beside_the_alarm_at_once(drifted):
    import time

    from calidrift_analyzer.records import Mute

    mute = Mute(
        model="net",
        point=None,
        created_ns=time.time_ns(),
        until_ns=time.time_ns() + 10**12,
        reason="a known fault",
        author="eve",
    )
    drifted.run(lambda store: store.annotations.mute(mute))

    found = drifted.get("/models/net").json()

    assert found["alarm"] is None
    assert "a known fault" in found["muted"]


def test_another_process_reads_the_assessment_that_was_kept(drifted):
    drifted.service.board._latest.clear()  # as after a restart

    found = drifted.get("/models/net").json()

    assert found["verdict"] == "drifted_harmful"
    assert drifted.get("/models/net/assessments").json()["items"][0]["verdict"] == (
        "drifted_harmful"
    )


def test_the_description_of_the_api_is_there_and_names_its_problems(site):
    found = site.get("/openapi.json").json()

    assert found["info"]["title"] == "Calidrift"
    assert "/api/v1/jobs/{job}/approve" in found["paths"]
    assert "Problem" in found["components"]["schemas"]
    for path, operations in found["paths"].items():
        for operation in operations.values():
            assert {"401", "403", "429", "503"} <= set(operation["responses"]), path
            assert operation.get("security"), path


def test_health_and_readiness_ask_for_nothing(make_site, tokens_file):
    site = make_site(tokens=tokens_file('[a]\nsecret = "0123456789abcdef"\nscopes = ["read"]\n'))

    assert site.http.get("/healthz").text == "ok\n"
    assert site.http.get("/readyz").text == "ok\n"
    assert site.http.get("/metrics").status_code == 401
