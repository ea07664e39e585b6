"""The pages in a real browser: both widths, both colour schemes, the keyboard, no complaint."""

import os
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from calidrift_analyzer.jobs import LiveProgress
from calidrift_analyzer.records import JobState
from calidrift_analyzer.service import create_application

DEADLINE = 30.0
PAGES = {
    "overview": "/",
    "model": "/models/net",
    "point": "/models/net/points/a%3Ainput",
    "job": "/jobs/1",
    "approve": "/jobs/1/approve",
    "mute": "/mute?model=net&point=a%3Ainput",
    "freeze": "/freeze?model=net",
}
IN_THE_DARK = ("overview", "model", "point")


@pytest.fixture(scope="module")
def chromium(needed):
    """Path of the browser."""
    return needed("chromium", "chromium")


@pytest.fixture
def folder(tmp_path):
    """Where pictures go: kept where CALIDRIFT_SCREENSHOTS says so."""
    path = Path(os.environ.get("CALIDRIFT_SCREENSHOTS") or tmp_path / "screenshots")
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def serving(site):
    """The site on a port of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_application(site.service), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until = time.monotonic() + DEADLINE
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(DEADLINE)
        listening.close()


@pytest.mark.slow
def test_every_page_in_a_browser(drifted, chromium, folder):
    from playwright.sync_api import sync_playwright

    complaints = []
    with serving(drifted) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            for width in (1280, 390):
                context = browser.new_context(
                    color_scheme=scheme, viewport={"width": width, "height": 900}
                )
                page = context.new_page()
                page.set_default_timeout(DEADLINE * 1_000)
                page.on("console", lambda one: complaints.append(one.text))
                page.on("pageerror", lambda one: complaints.append(str(one)))
                page.on(
                    "response",
                    lambda one: complaints.append(one.url) if one.status >= 400 else None,
                )
                for name, path in PAGES.items():
                    if scheme == "dark" and name not in IN_THE_DARK:
                        continue
                    page.goto(url + path)
                    inside = page.evaluate("document.documentElement.scrollWidth")
                    assert inside <= width, f"{name} is {inside} px wide at {width}"
                    page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
                context.close()
        mute_by_keyboard(browser, url, drifted)
        approve_by_keyboard(browser, url, drifted)
        browser.close()

    assert not complaints
    assert len(list(folder.glob("*.png"))) >= 2 * (len(PAGES) + len(IN_THE_DARK))


@pytest.mark.slow
def test_narrow_pages_hold_a_running_job(site, chromium):
    from playwright.sync_api import sync_playwright

    site.stages.hold = JobState.RECALIBRATING
    site.post("/jobs", {"model": "net"})
    site.wait("recalibrating")
    what = "quantizing and measuring candidate samples-percentile"
    now = LiveProgress(job=1, what=what, done=3, total=10, since_ns=time.time_ns() - 10**10)
    site.service.worker.live = lambda: now
    try:
        with serving(site) as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            page.set_default_timeout(DEADLINE * 1_000)
            for width in (390, 360, 320):
                page.set_viewport_size({"width": width, "height": 900})
                for path in ("/", "/models/net", "/jobs/1"):
                    page.goto(url + path)
                    assert page.locator(".progress").first.inner_text().startswith(what), path
                    inside = page.evaluate("document.documentElement.scrollWidth")
                    assert inside <= width, f"{path} is {inside} px wide at {width}"
            browser.close()
    finally:
        site.stages.hold = None


def approve_by_keyboard(browser, url, site):
    """Reach the button with the Tab key alone, without scripts, and press it."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(DEADLINE * 1_000)
    page.goto(f"{url}/jobs/1")
    reach(page, "Approve…")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/1/approve")
    reach(page, "Approve and promote")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/1")
    assert site.wait("promoted")["job"]["approved_by"] == "local"
    context.close()


def mute_by_keyboard(browser, url, site):
    """Mute a point from its page: without scripts, without a mouse, by what labels say."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(DEADLINE * 1_000)
    page.goto(f"{url}/models/net/points/a%3Ainput")
    reach(page, "Mute…")
    page.keyboard.press("Enter")
    page.wait_for_url("**/mute?*")
    assert page.get_by_label("Point", exact=True).input_value() == "a:input"
    page.get_by_label("For how long").press("ArrowDown")
    page.get_by_label("Why").fill("a new lens")
    reach(page, "Mute")
    page.keyboard.press("Enter")
    page.wait_for_url("**/models/net/points/*")
    assert "because: a new lens (by local)" in page.locator("main").inner_text()
    [muted] = [
        one
        for one in site.run(lambda store: store.annotations.active("net"))
        if one.point == "a:input"
    ]
    assert muted.until_ns - muted.created_ns == 72 * 3_600 * 10**9, "one further than a day"
    context.close()


def reach(page, text):
    """Press Tab until what has the focus says something; it must be visible that it has."""
    for _ in range(40):
        page.keyboard.press("Tab")
        focus = page.locator(":focus")
        if focus.count() and focus.inner_text() == text:
            assert page.locator(":focus-visible").count() == 1
            return
    raise AssertionError(f"the keyboard never reaches {text!r}")


@pytest.mark.slow
def test_zoom_and_live_refresh_in_a_browser(drifted, chromium):
    from playwright.sync_api import sync_playwright

    with serving(drifted) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(DEADLINE * 1_000)
        page.goto(f"{url}/models/net")
        before = page.locator("svg.heat").bounding_box()["width"]
        page.get_by_role("button", name="Zoom in").click()
        after = page.locator("svg.heat").bounding_box()["width"]
        drifted.stages.hold = JobState.SELECTING
        drifted.post("/jobs", {"model": "other"})
        drifted.wait("selecting", 2)
        page.goto(f"{url}/jobs/2")
        assert "awaiting approval" not in page.locator("h1").inner_text()
        drifted.stages.hold = None
        page.locator("h1", has_text="awaiting approval").wait_for()
        browser.close()

    assert after == pytest.approx(1.5 * before, rel=0.01)


def test_without_the_browser_the_tests_are_skipped_unless_they_must_run(monkeypatch, needed):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CALIDRIFT_REQUIRE_SYSTEM", raising=False)
    with pytest.raises(pytest.skip.Exception, match="chromium is not installed"):
        needed("chromium", "chromium")
    monkeypatch.setenv("CALIDRIFT_REQUIRE_SYSTEM", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        needed("chromium", "chromium")
