"""Awkward names in paths: each leads to what it names, or nowhere; never to something else."""

import time
from urllib.parse import quote

import pytest

from calidrift_analyzer.errors import NoDataError
from calidrift_analyzer.service.page._rendering import link

AWKWARD = (
    "x",
    "points/x",
    "a/points/b",
    "/layer1/conv.2/Conv:input",
    "net/points/x",
    "layer4.1.conv2:input",
    "a b",
    "a+b",
    "a%2Fb",
    "a%252Fb",
    "50%",
    "a?b=c#d",
    "é…漢",
    "a//b",
    "a/",
    "...",
    "..:input",
    "a/../b",
    "\ue000",
    "\ue0000",
    "a\ue0001b",
)
MODELS = ("net", "net/points", "net/points/x", "points", "a%2Fb", "a/b", "\ue000")


def name_of(text):
    return text.encode("unicode_escape").decode()


@pytest.fixture
def asked(site, monkeypatch):
    """What a page was asked for."""
    found = []

    def gather(kind):
        def note(store, context, *names):
            found.append((kind, *names))
            raise NoDataError("noted")

        return note

    pages = "calidrift_analyzer.service.page._pages"
    monkeypatch.setattr(f"{pages}.gather_point", gather("point"))
    monkeypatch.setattr(f"{pages}.gather_model", gather("model"))
    return found


@pytest.mark.parametrize("point", AWKWARD, ids=name_of)
def test_a_link_to_a_point_leads_to_that_point_of_that_model(point, asked, site):
    for model in MODELS:
        site.http.get(link("models", model, "points", point))

    assert [one[:3] for one in asked] == [("point", model, point) for model in MODELS]


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_a_link_to_a_model_leads_to_that_model(model, asked, site):
    site.http.get(link("models", model))

    assert [one[:2] for one in asked] == [("model", model)]


@pytest.mark.parametrize(
    "path",
    [
        "/models/net/points/points/x",
        "/models/net/points/x/points/y",
        "/models/a/b/points/c",
        "/models/a/b",
        "/models/net/points/",
        "/models//points/x",
    ],
)
def test_a_path_that_could_mean_two_things_leads_nowhere(path, asked, site):
    """As where a proxy decoded it: no guess is better than a wrong one."""
    answer = site.http.get(path)

    assert (answer.status_code, asked) == (404, [])


def record(site, traffic, model, points):
    """Let a process of a model report calm traffic at some points."""
    calm = {name: traffic.rng.uniform(-1, 1, (64, 8)) for name in points}
    profile = traffic.profile(calm)
    meta = traffic.meta(model=model, points=tuple(points), profile=profile.digest)
    start_ns = time.time_ns() - 60 * 10**9
    values = [traffic.rng.uniform(-0.9, 0.9, (20, 8)) for _ in points]
    window = traffic.unit_window(0, values, [2.0] * len(points), start_ns=start_ns)

    def work(store):
        store.put_profile(profile)
        store.ingest(meta, [window], batch=store.next_batch())

    site.run(work)


def test_the_api_tells_models_and_points_apart_by_their_whole_names(site, traffic):
    names = {
        "net": ("points/x", "x"),
        "net/points": ("x", "y"),
        "net/points/x": ("z",),
    }
    for model, points in names.items():
        record(site, traffic, model, points)
    site.service.tasks.assess()

    for model, points in names.items():
        at = f"/models/{quote(model, safe='')}"
        assert site.get(at).json()["model"] == model
        assert {one["point"] for one in site.get(f"{at}/points").json()} == set(points)
        for point in points:
            found = site.get(f"{at}/histogram", params={"point": point})
            assert found.status_code == 200, found.text
            assert found.json()["point"] == point
    wrong = site.get("/models/net%2Fpoints%2Fx/histogram", params={"point": "x"})
    assert wrong.status_code == 404
    assert site.get("/models/net/points/x").status_code == 404


def test_a_page_of_a_point_is_about_that_point(site, traffic):
    for model, points in {"net": ("points/x",), "net/points": ("x",)}.items():
        record(site, traffic, model, points)
    site.service.tasks.assess()

    first = site.http.get(link("models", "net", "points", "points/x"))
    second = site.http.get(link("models", "net/points", "points", "x"))
    neither = site.http.get(link("models", "net", "points", "x"))

    assert (first.status_code, second.status_code) == (200, 200)
    assert "points/x" in first.text
    assert "net/points" in second.text
    assert neither.status_code == 404


def test_the_description_of_the_api_has_plain_parameters(site):
    paths = site.http.get("/api/v1/openapi.json").json()["paths"]

    assert "/api/v1/models/{model}/points" in paths
    assert not [path for path in paths if ":" in path]
