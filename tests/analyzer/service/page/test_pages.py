"""Every page in every state: well-formed, complete, escaped, small."""

import time
from dataclasses import replace

import pytest

from calidrift_agent._state import PointMeta
from calidrift_agent._vocabulary import CountColumn, ValueColumn
from calidrift_analyzer.records import JobState

PATHS = ["/", "/models/net", "/models/other"]
LIMIT = 200_000
MISSING = [
    "/models/nobody",
    "/models/net/points/z",
    "/models/nobody/points/a",
    "/jobs/7",
    "/jobs/7/approve",
    "/jobs/x",
    "/jobs/0",
    "/models/net?hours=5",
    "/models/net?measure=luck",
    "/models/net?first=-1",
    "/rollback?model=nobody",
    "/rollback",
    "/start",
    "/start?model=nobody",
    "/freeze?model=nobody",
    "/thaw?model=nobody",
    "/mute",
    "/mute?model=nobody",
    "/unmute?model=nobody",
    "/assets/nothing.js",
]


def link_to(page, target):
    return [one for one in page.all("a") if one.get("href") == target]


def test_before_anything_was_recorded(site, pages):
    for path in PATHS:
        page = pages.read(site.http.get(path))

        assert "not assessed" in page.text
        assert "has not been assessed yet" in page.text


def test_the_overview_says_what_happened_and_what_to_do(drifted, pages):
    page = pages.read(drifted.http.get("/"))
    told = drifted.get("/models/net").json()

    assert told["sentence"] in page.text
    assert "look at what recalibration 1 proposes, then approve or cancel it" in page.text
    point = pages.read(drifted.http.get("/models/net/points/a%3Ainput"))
    assert (
        "order a recalibration, on the model's page or with calidrift jobs start" in point.text
    ), "what works beside the service, as code"
    assert "calidrift select" not in point.text + page.text
    assert "▲ drifted harmful" in page.text
    assert "Since" in page.text
    assert page.text.index("drifted harmful") < page.text.index("other has not been assessed")
    assert link_to(page, "/models/net")
    assert "UTC" in page.text
    assert "assess" in page.text, "the tasks of the schedule"


def test_a_model_with_everything_about_it(drifted, pages):
    page = pages.read(drifted.http.get("/models/net"))

    [heat] = page.all("svg")
    assert "2 points by 60 slices of time" in page.text, "an hour fits these data"
    assert any(one.get("class", "").startswith("l7") for one in page.all("path"))
    assert link_to(page, "/models/net/points/a%3Ainput")
    assert "muted until" in page.text
    assert "a new client (by eve)" in page.text
    assert "the drift began" in page.text
    assert "the alarm was raised" in page.text
    assert "all traffic" in page.text, "service levels"
    assert heat["width"] == "1010"


def test_each_measure_as_picture_and_as_figures(drifted, pages):
    for measure in ("coverage", "exceedance", "clipped_energy", "sqnr_change"):
        check_measure(measure, drifted, pages)


def check_measure(measure, drifted, pages):
    asked = {"measure": measure, "hours": 1}
    picture = pages.read(drifted.http.get("/models/net", params=asked))
    figures = pages.read(drifted.http.get("/models/net", params={**asked, "figures": 1}))

    assert len(picture.all("svg")) == 1
    assert not figures.all("svg")
    told = [one for one in picture.all("a") if one.get("aria-current") == "true"]
    assert f"measure={measure}&hours=1" in told[0]["href"]
    unit = " dB" if measure == "sqnr_change" else "0" if measure == "clipped_energy" else " %"
    assert unit in figures.text
    assert "—" in figures.text, "what was not recorded is no zero"


def test_a_point_with_its_ranges(drifted, pages):
    page = pages.read(drifted.http.get("/models/net/points/a%3Ainput"))

    for word in ("calibrated", "observed bound", "production", "proposed"):
        assert word in page.text
    assert "least squared error" in page.text
    assert len(page.all("svg")) == 2 + 4, "ranges, histogram, and four figures over time"
    assert "ΔSQNR: \N{MINUS SIGN}" in page.text


def test_the_range_of_a_candidate_that_waits_is_what_is_proposed(drifted, tmp_path, pages):
    (tmp_path / "candidate").mkdir()
    drifted.profile.save(tmp_path / "candidate" / "profile.json")

    page = pages.read(drifted.http.get("/models/net/points/a%3Ainput"))

    assert "candidate samples-mse of job 1; predicted SQNR" in page.text
    assert link_to(page, "/jobs/1")
    assert "least squared error" not in page.text


def test_a_job_that_waits_is_shown_with_report_and_samples(drifted, pages):
    page = pages.read(drifted.http.get("/jobs/1"))

    for word in (
        "Candidate samples-mse",
        "agrees with FP32 on 99 %",
        "float32 {0}{1}3{1}8{1}8".format(1, "\N{MULTIPLICATION SIGN}"),
        "2027-01-15 08:00 UTC",
        "night",
        "its file has been replaced since",
        "at least 97.0 % of the best possible choice",
        "odd: alone at a:input, 99.5",
        "traffic left the calibrated range",
        "1,234,567",
    ):
        assert word in page.text
    assert link_to(page, "/jobs/1/approve")
    assert link_to(page, "/jobs/1/cancel")
    assert link_to(pages.read(drifted.http.get("/")), "/jobs/1/approve")
    assert link_to(pages.read(drifted.http.get("/models/net")), "/jobs/1/approve")


def test_a_running_job_shows_how_far_it_is_and_follows(site, pages):
    site.stages.hold = JobState.RECALIBRATING
    site.post("/jobs", {"model": "net"})
    site.wait("recalibrating")
    until = time.monotonic() + 30
    page = pages.read(site.http.get("/jobs/1"))
    while not page.all("progress") and time.monotonic() < until:
        page = pages.read(site.http.get("/jobs/1"))
    site.stages.hold = None

    assert page.all("progress")[0]["max"] == "3"
    assert page.all("main")[0]["data-live"] == "3"


@pytest.mark.parametrize("end", ["refused", "failed", "cancelled", "confirmed", "promoted"])
def test_a_job_at_its_end_asks_for_nothing(end, site, pages):
    run = site.stages.run
    site.stages.run = lambda work: replace(run(work), state=JobState(end), sentence="so it ended")
    site.post("/jobs", {"model": "net"})
    site.wait(end)

    page = pages.read(site.http.get("/jobs/1"))

    assert "so it ended" in page.text
    assert "data-live" not in page.all("main")[0]
    assert not link_to(page, "/jobs/1/approve")
    assert not link_to(page, "/jobs/1/cancel")
    assert bool(link_to(page, "/rollback?model=net")) == (end == "promoted")


def test_a_frozen_model_says_by_whom_and_offers_no_approval(drifted, pages):
    drifted.post("/freezes", {"frozen": True, "note": "audit week"})
    everywhere = pages.read(drifted.http.get("/"))
    job = pages.read(drifted.http.get("/jobs/1"))

    assert "every model, by local since" in everywhere.text
    assert "audit week" in everywhere.text
    assert "audit week" in job.text
    assert not link_to(job, "/jobs/1/approve")


def test_hostile_names_are_words_and_nothing_else(site, traffic, pages):
    name = pages.hostile
    profile = traffic.profile({name: traffic.rng.uniform(-1, 1, (50, 16))})
    meta = traffic.meta(points=(name,), profile=profile.digest, model=name)
    meta = replace(meta, points=(PointMeta(name, 1.0, -1.0, 1.0, ()),))
    start_ns = time.time_ns() - 60 * 10**9
    values = [traffic.rng.uniform(-4, 4, (40, 16))]
    window = traffic.unit_window(0, values, [1.0], start_ns=start_ns)

    def work(store):
        store.put_profile(profile)
        store.ingest(meta, [window], batch=store.next_batch())

    site.run(work)
    site.service.tasks.assess()
    answers = [site.http.get("/")]
    links = [one["href"] for one in pages.read(answers[0]).all("a")]
    [target] = [one for one in links if "script" in one and "/points/" not in one]
    answers.append(site.http.get(target))
    inner = [one["href"] for one in pages.read(answers[1]).all("a") if "/points/" in one["href"]]
    answers.append(site.http.get(inner[0]))

    for answer in answers:
        page = pages.read(answer)
        assert name in page.text
        assert "<script>alert" not in answer.text
        assert len(page.all("script")) == 1


def test_hostile_words_of_people_and_reports_are_escaped(drifted, pages):
    drifted.post("/freezes", {"frozen": True, "model": "net", "note": pages.hostile})

    for path in ("/", "/models/net", "/jobs/1"):
        answer = drifted.http.get(path)
        assert pages.hostile in pages.read(answer).text
        assert "<script>alert" not in answer.text


def test_what_is_not_there_is_a_page_too(site, pages):
    for path in MISSING:
        assert link_to(pages.read(site.http.get(path), 404), "/"), path


def test_a_database_that_is_away_is_a_page_that_says_when_to_come_back(site, pages, monkeypatch):
    monkeypatch.setattr(site.service.owner, "_available", False)

    answer = site.http.get("/")

    assert "is being opened again" in pages.read(answer, 503).text
    assert answer.headers["retry-after"] == "2"


def test_a_defect_is_a_page_that_tells_nothing(site, pages, monkeypatch, caplog):
    monkeypatch.setattr(site.service, "context", lambda: 1 / 0)

    page = pages.read(site.http.get("/"), 500)

    assert "its log has the traceback" in page.text
    assert "ZeroDivisionError" not in page.text
    assert "ZeroDivisionError" in caplog.text


def test_every_answer_has_the_headers_that_keep_others_out(site):
    for path in ("/", "/jobs/7", "/sign-in", "/assets/page.js", "/assets/x"):
        check_headers(path, site)


def check_headers(path, site):
    told = site.http.get(path).headers

    policy = dict(one.strip().split(" ", 1) for one in told["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert "unsafe" not in told["content-security-policy"]
    assert told["x-content-type-options"] == "nosniff"
    assert told["x-frame-options"] == "DENY"
    assert told["referrer-policy"] == "same-origin"
    assert told["cache-control"] == ("max-age=300" if path == "/assets/page.js" else "no-store")


def test_pages_load_nothing_from_elsewhere(drifted):
    for path in ("/", "/models/net", "/models/net/points/a%3Ainput", "/assets/page.css",
                 "/assets/page.js"):  # fmt: skip
        text = drifted.http.get(path).text
        assert "http:" not in text.replace("http-equiv", "")
        assert "https:" not in text
        assert "innerHTML" not in text


def test_pages_are_no_part_of_the_api(site):
    assert all(path.startswith("/api/v1/") for path in site.get("/openapi.json").json()["paths"])


@pytest.mark.slow
def test_the_page_of_200_points_and_30_days_is_small(site, traffic, pages):
    rng = traffic.rng
    names = [f"encoder.layers.{n // 10}.attention.out_proj.{n % 10}:input" for n in range(200)]
    profile = traffic.profile({name: rng.uniform(-1, 1, (60, 4)) for name in names})
    meta = traffic.meta(points=names, profile=profile.digest)
    now = time.time_ns()

    values = [rng.uniform(-1, 1, (4, 4)) for _ in names]
    like = traffic.unit_window(0, values, [1.0] * 200)

    def window(number):
        """Other shares and magnitudes at each point in each slice: nothing to merge."""
        counts, sums = like.counts.copy(), like.values.copy()
        counts[:, CountColumn.UNITS] = 20
        counts[:, CountColumn.EXCEEDANCES] = rng.integers(0, 20, 200)
        sums[:, ValueColumn.CLIPPED_ENERGY] = sums[:, ValueColumn.ENERGY] * rng.random(200)
        start_ns = now - (60 - number) * 12 * 3600 * 10**9
        return replace(
            like, number=number, start_ns=start_ns, end_ns=start_ns + 10**9,
            counts=counts, values=sums,
        )  # fmt: skip

    windows = [window(number) for number in range(60)]

    def work(store):
        store.put_profile(profile)
        store.ingest(meta, windows, batch=store.next_batch())

    site.run(work)
    site.service.tasks.assess()
    sizes = {}
    for measure, figures in (("coverage", ""), ("coverage", "1"), ("sqnr_change", "")):
        asked = {"measure": measure, "hours": 720, **({"figures": 1} if figures else {})}
        answer = site.http.get("/models/net", params=asked)
        page = pages.read(answer)
        assert page.text.count("attention.out_proj") >= 200
        sizes[measure, figures] = len(answer.content)
        if measure == "coverage" and not figures:
            cells = sum(one["d"].count("M") for one in page.all("path"))

    assert max(sizes.values()) < LIMIT, sizes
    assert min(sizes.values()) > LIMIT / 10, "whatever is missing is small, too"
    assert cells > 3_000
