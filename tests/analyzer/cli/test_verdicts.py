"""What `calidrift status` and `coverage` say for every verdict, word for word.

The words stand in `verdicts.txt`, with tables as on a terminal of 80 columns.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from calidrift_agent._profile import CalibrationProfile, ClipBound, ReferenceOrigin
from calidrift_agent._state import SegmentCount, Window
from calidrift_agent._vocabulary import CountColumn, ReferenceSource, RequestColumn
from calidrift_analyzer.cli import _output, _status
from calidrift_analyzer.records import Verdict
from calidrift_analyzer.store import Store

GOLDEN = Path(__file__).with_name("verdicts.txt")
SECOND = 1_000_000_000
EPOCH = 1_800_000_000 * SECOND
LONG = "features.layer3.1.downsample.conv2:input"
POINTS = ("fc:input", LONG)
COMPARED = slice(RequestColumn.COMPARED, RequestColumn.DISTANCE_PPB + 1)


@dataclass
class Scene:
    """A database made by hand, and the commands that read it."""

    shop: object
    traffic: object
    profile: CalibrationProfile | None = None

    def calibrate(self, units: int, **changes):
        """Ramps that all units share: the largest is 1, the bound is 1, whatever the rank."""
        self.profile = self.traffic.profile({name: ramp([1.0] * units) for name in POINTS})
        self.change(**changes)

    def change(self, **changes):
        points = {name: replace(one, **changes) for name, one in self.profile.points.items()}
        self.profile = replace(self.profile, points=points)

    def serve(self, *scales: tuple[float, float], units=10, change=None, keep=True, step=SECOND):
        """One window for each pair of scales; `change(window)` may edit each of them."""
        windows = []
        for number, pair in enumerate(scales):
            values = [ramp([scale] * units) for scale in pair]
            bounds = [1.0, 1.0] if self.profile else [None, None]
            start_ns = EPOCH + number * (step - SECOND)
            window = self.traffic.unit_window(number, values, bounds, start_ns=start_ns, seen=1000)
            if change is not None:
                change(window)
            windows.append(window)
        self.record(windows, keep=keep)

    def serve_segments(self, windows: int, night: list[float], day: int, change=None):
        """Windows of so many calm units by day, and these by night at the second point."""
        made = []
        for number in range(windows):
            scales = [0.9] * day + night
            values = [ramp([0.9] * len(scales)), ramp(scales)]
            window = self.traffic.unit_window(number, values, [1.0, 1.0], seen=1000)
            if change is not None:
                change(window)
            inside = sum(scale <= 1.0 for scale in night)
            segments = (SegmentCount("day", day, day), SegmentCount("night", len(night), inside))
            made.append(replace(window, segments=segments))
        self.record(made)

    def record(self, windows: list[Window], *, keep=True):
        with Store.open(self.shop.root / "x.duckdb") as store:
            digest = self.profile.digest if self.profile else ""
            meta = self.traffic.meta(points=POINTS, profile=digest)
            store.ingest(meta, windows, batch=store.next_batch())
            if self.profile and keep:
                store.put_profile(self.profile)

    def said(self, command="status") -> str:
        """The answer for people."""
        status, out, err = self.shop.run(command, "net")
        assert (status, err) == (0, "")
        return "\n".join(line.rstrip() for line in out.splitlines())

    def model(self):
        _, document = self.shop.json("status", "net")
        return document["models"][0]


def ramp(scales) -> np.ndarray:
    """Units of 64 elements, evenly spread from -scale to scale."""
    return np.linspace(-1.0, 1.0, 64) * np.asarray(scales)[:, None]


@pytest.fixture
def scene(shop, traffic, monkeypatch):
    monkeypatch.setattr(_status, "time_ns", lambda: EPOCH + 300 * SECOND)
    shop.configure('[analyzer]\nstate_dirs = []\ndatabase = "x.duckdb"\n[models.net]\n' + CONTRACT)
    return Scene(shop, traffic)


CONTRACT = """
factory = "shop_code:build"
example_inputs = "shop_code:example"
calibration = "shop_code:calibration"
evaluate = "shop_code:evaluate"
"""


def harmful(scene):
    scene.calibrate(512)
    scene.serve((1.0, 1.0), (1.0, 4.0))


def harmless(scene):
    scene.calibrate(512, clip_bound=ClipBound.of_quantizer(8.0 / 255, 128, 0, 255, "uint8"))
    scene.serve((1.0, 1.5), (1.0, 1.5))


def unknown_harm(scene):
    scene.calibrate(512, clip_bound=None, sketch=None)
    scene.serve((1.0, 4.0))


def calm(scene):
    scene.calibrate(512)
    scene.serve((1.0, 0.9), (0.9, 0.9))


def just_short(scene):
    """All there is exceeds a hundredfold, but two units prove little beside a small reference."""
    scene.calibrate(30)
    scene.serve((0.9, 100.0), units=1)


def lone_harm(scene):
    """One unit in two hundred: chance explains it, the fall of SQNR hurts all the same."""
    scene.calibrate(200)
    scene.serve(*[(0.9, 0.9)] * 19, units=10)
    with Store.open(scene.shop.root / "x.duckdb") as store:
        values = [ramp([0.9]), ramp([100.0])]
        window = scene.traffic.unit_window(0, values, [1.0, 1.0], seen=1000)
        meta = scene.traffic.meta(points=POINTS, profile=scene.profile.digest)
        store.ingest(meta, [window], batch=store.next_batch())


def learning(scene):
    scene.calibrate(8)
    scene.serve((0.9, 0.9))


def learning_never(scene):
    scene.calibrate(1)
    scene.serve((0.9, 100.0))


def no_reference(scene):
    scene.serve((1.0, 1.0))


def not_collected(scene):
    scene.calibrate(64)
    scene.serve((1.0, 1.0), keep=False)


def ranges_only(scene):
    scene.calibrate(64, observed_bound=None, sketch=None)
    scene.serve((1.0, 1.0))


def harm_without_reference(scene):
    scene.calibrate(64, observed_bound=None)
    scene.serve((1.0, 100.0))


def provisional(scene):
    """As a promotion leaves a profile: bounds of samples that were selected."""
    scene.calibrate(512)
    origin = ReferenceOrigin(source=ReferenceSource.PROVISIONAL)
    scene.profile = replace(scene.profile, reference=origin)


def burn_in(scene):
    provisional(scene)
    scene.serve((0.9, 0.9), (0.9, 0.9))


def burn_in_over(scene):
    provisional(scene)
    scene.serve((0.9, 0.9), (0.9, 0.9), units=300)


def burn_in_drift(scene):
    provisional(scene)
    scene.serve((0.9, 0.9), (1.0, 4.0), (1.0, 4.0))


def blind(scene):
    def silence(window: Window):
        window.counts[1] = 0
        window.cells[1] = 0

    scene.calibrate(512)
    scene.serve((1.0, 1.0), change=silence)


def unread(scene):
    """Sampled, but nothing was ever read: a generator, say."""

    def hide(window: Window):
        window.counts[:] = 0
        window.cells[:] = 0
        window.requests[RequestColumn.OBSERVED] = 0
        window.requests[RequestColumn.UNITS : RequestColumn.UNITS_COVERED + 1] = 0

    scene.calibrate(512)
    scene.serve((1.0, 1.0), units=50, change=hide)


def unread_without_reference(scene):
    def hide(window: Window):
        window.counts[:] = 0
        window.cells[:] = 0
        window.requests[RequestColumn.OBSERVED] = 0

    scene.serve((1.0, 1.0), units=50, change=hide)


def agent_in_trouble(scene):
    def spoil(window: Window):
        window.requests[RequestColumn.ERROR_FIRST + 2] = 1200
        window.requests[RequestColumn.DROP_FIRST] = 7
        window.requests[RequestColumn.DROP_FIRST + 2] = 99  # capture_limit: as it was told

    scene.calibrate(512)
    scene.serve((0.9, 0.9), change=spoil)


def not_finite(scene):
    def spoil(window: Window):
        window.counts[1, CountColumn.NAN] = 7
        window.counts[1, CountColumn.INF] = 1

    scene.calibrate(512)
    scene.serve((1.0, 1.0), change=spoil)


def not_finite_alarm(scene):
    def spoil(window: Window):
        window.counts[1, CountColumn.NAN] = 1200

    scene.calibrate(512)
    scene.serve((1.0, 4.0), change=spoil)


def not_finite_alone(scene):
    """Finite values are as ever: nothing says what NaN costs, and no range repairs it."""

    def spoil(window: Window):
        window.counts[1, CountColumn.NAN] = 30
        for column in (CountColumn.EXCEEDANCES, CountColumn.UNITS_NOT_FINITE):
            window.counts[1, column] += 3
        window.requests[RequestColumn.UNITS_COVERED] -= 3

    scene.calibrate(512)
    scene.serve((0.9, 0.9), (0.9, 0.9), change=spoil)


def one_segment(scene):
    """A tenth of the traffic drifts, the rest stays as it was."""
    scene.calibrate(512)
    scene.serve_segments(12, [4.0] * 5, day=45)


def one_small_segment(scene):
    """So few that no point alarms, and more of that segment than is tolerated."""
    scene.calibrate(512)
    scene.serve_segments(12, [0.9, 0.9, 4.0], day=196)
    with Store.open(scene.shop.root / "x.duckdb") as store:
        store.references.put_segments(scene.profile.digest, {"day": 412, "night": 100})


def answers(wrong: int, of=50):
    """Compares the served answers of each window with FP32: so many of them differ."""

    def compare(window: Window):
        window.requests[COMPARED] = (of, of, of - wrong, of * 10_000_000, 0)

    return compare


def harm_measured(scene):
    """Predicted harmless, measured harmful: what was measured decides."""
    bound = ClipBound.of_quantizer(8.0 / 255, 128, 0, 255, "uint8")
    scene.calibrate(512, clip_bound=bound)
    scene.serve((1.0, 1.5), (1.0, 1.5), change=answers(15))


def harm_predicted_only(scene):
    """Predicted harmful, while nearly every answer is that of FP32: both are told."""
    scene.calibrate(512)
    scene.serve((1.0, 1.0), *[(1.0, 4.0)] * 6, change=answers(0))


def harm_before_drift(scene):
    """Answers agreed while traffic was calm, and none was compared since it drifted."""

    def compare(window: Window):
        if window.number < 8:
            answers(0)(window)

    scene.calibrate(512)
    scene.serve(*[(0.9, 0.9)] * 8, *[(1.0, 4.0)] * 4, change=compare)


def harm_long_ago(scene):
    """A breach stays, and must not read as if the answers of today were meant."""

    def compare(window: Window):
        answers(15 if window.number == 0 else 0)(window)

    scene.calibrate(512)
    scene.serve(*[(0.9, 0.9)] * 20, change=compare)


def harm_without_drift(scene):
    """Traffic stays inside the ranges, yet answers differ: quantization itself costs too much."""
    scene.calibrate(512)
    scene.serve((0.9, 0.9), (0.9, 0.9), change=answers(15))


def noise_measured(scene):
    """Outputs without classes: the noise in them is what is measured."""

    def compare(window: Window):
        window.requests[COMPARED] = (50, 0, 0, 20 * 10**9, 0)

    scene.calibrate(512)
    scene.serve((1.0, 1.0), (1.0, 4.0), change=compare)


def worst_hour(scene):
    """Two days by the hour, and every night at four something leaves the ranges."""
    scene.calibrate(512)
    hours = [(0.9, 1.5 if hour % 24 == 20 else 0.9) for hour in range(48)]
    scene.serve(*hours, units=40, step=3600 * SECOND)


def no_data(scene):
    pass


SCENES: dict[str, Callable[[Scene], None]] = {
    scene.__name__: scene
    for scene in (
        harmful,
        harmless,
        unknown_harm,
        calm,
        just_short,
        lone_harm,
        learning,
        learning_never,
        no_reference,
        not_collected,
        ranges_only,
        harm_without_reference,
        burn_in,
        burn_in_over,
        burn_in_drift,
        blind,
        unread,
        unread_without_reference,
        agent_in_trouble,
        not_finite,
        not_finite_alarm,
        not_finite_alone,
        one_segment,
        one_small_segment,
        harm_measured,
        harm_predicted_only,
        harm_before_drift,
        harm_long_ago,
        harm_without_drift,
        noise_measured,
        worst_hour,
        no_data,
    )
}


def golden() -> dict[str, str]:
    """The expected answers: `@@ command scene`, then the text."""
    sections = GOLDEN.read_text(encoding="utf-8").split("@@ ")[1:]
    pairs = (section.split("\n", 1) for section in sections)
    return {name: text.rstrip("\n") for name, text in pairs}


@pytest.mark.parametrize("name", SCENES)
def test_status_word_for_word(scene, monkeypatch, name):
    monkeypatch.setattr(_output, "_WIDTH_OF_A_FILE", 80)
    SCENES[name](scene)
    assert scene.said() == golden()[f"status {name}"]


@pytest.mark.parametrize("name", ["harmful", "blind", "harm_without_reference"])
def test_coverage_word_for_word(scene, monkeypatch, name):
    monkeypatch.setattr(_output, "_WIDTH_OF_A_FILE", 80)
    SCENES[name](scene)
    assert scene.said("coverage") == golden()[f"coverage {name}"]


def test_there_is_a_text_for_every_verdict():
    text = GOLDEN.read_text(encoding="utf-8")
    assert [one for one in Verdict if f"net: {one}\n" not in text] == []


def test_every_column_stands_in_a_wide_table(scene):
    harmful(scene)
    said = scene.said()
    assert LONG in said.split("\n- ")[0]
    for heading in ("evidence", "95 % interval", "SQNR dB", "clipped (measured)", "over-range"):
        assert heading in said


def test_long_figures_are_for_those_who_ask(scene, monkeypatch):
    """A narrow terminal gets what is needed at night, `--wide` everything; both label it."""
    one_segment(scene)
    wide = scene.said()
    assert "** explanation: no alarm is made of them" in wide
    assert "maxima are of sampled requests" in wide
    assert "alarm where evidence reaches" in wide
    assert "at all looks" in wide
    monkeypatch.setattr(_output, "_WIDTH_OF_A_FILE", 80)
    narrow = scene.said()
    for figure in ("evidence reaches", "at all looks", "explanation", "request coverage"):
        assert figure not in narrow
    status, asked, _ = scene.shop.run("status", "net", "--wide")
    assert status == 0
    assert "alarm where evidence reaches" in asked


@pytest.mark.parametrize(("points", "listed"), [(11, 11), (12, 10)])
def test_a_long_table_is_cut_where_it_is_calm(shop, traffic, monkeypatch, points, listed):
    names = tuple(f"layer{number}:input" for number in range(points))
    shop.configure('[analyzer]\nstate_dirs = []\ndatabase = "x.duckdb"\n[models.net]\n' + CONTRACT)
    profile = traffic.profile({name: ramp([1.0] * 512) for name in names})
    window = traffic.unit_window(0, [ramp([0.9] * 10) for _ in names], [1.0] * points, seen=100)
    with Store.open(shop.root / "x.duckdb") as store:
        meta = traffic.meta(points=names, profile=profile.digest)
        store.ingest(meta, [window], batch=store.next_batch())
        store.put_profile(profile)
    monkeypatch.setattr(_output, "_WIDTH_OF_A_FILE", 80)
    _, out, _ = shop.run("status", "net")
    assert sum(name in out.split("\n- ")[0] for name in names) == listed
    left = points - listed
    assert (f"and {left} points more: --wide, or --json" in out) is (left > 0)
    _, out, _ = shop.run("status", "net", "--wide")
    assert all(name in out for name in names)


def test_figures_of_harm_and_seasons_for_machines(scene):
    worst_hour(scene)
    model = scene.model()
    assert model["seasons"]["worst_hour"] == {"slot": 4, "units": 80, "outside": 80}
    assert len(model["seasons"]["hours"]) == 24
    assert model["seasons"]["weekdays"] == []
    assert model["harm"] is None
    assert model["points"][0]["explanatory"]["w1_octaves"] > 0


def test_measured_harm_for_machines(scene):
    harm_measured(scene)
    harm = scene.model()["harm"]
    assert (harm["loss"], harm["units"], harm["total"]) == ("disagreement", 100, 30.0)
    assert harm["mean"]["low"] < 0.3 < harm["mean"]["high"]
    assert harm["breach"]["units"] == 50


def test_suspicion_for_machines(scene):
    just_short(scene)
    model = scene.model()
    worst, calm_one = model["points"]
    assert (model["verdict"], worst["name"]) == ("not_drifted", LONG)
    assert (worst["verdict"], worst["suspected"]) == ("not_drifted", True)
    assert worst["exceedances_to_alarm"] == 1
    assert worst["log10_evidence"] < model["log10_threshold"]
    assert not calm_one["suspected"]


def test_so_many_more_units_raise_the_alarm(scene):
    scene.calibrate(12)
    scene.serve((0.9, 100.0), units=1)
    more = scene.model()["points"][0]["exceedances_to_alarm"]
    assert more > 1
    for _ in range(more):
        assert scene.model()["alarm"] is None
        scene.serve((0.9, 100.0), units=1)
    assert scene.model()["alarm"]["units"] == more + 1
    assert scene.model()["points"][0]["exceedances_to_alarm"] is None


def test_not_finite_values_for_machines(scene):
    not_finite(scene)
    point = scene.model()["points"][0]
    assert (point["name"], point["nan_elements"], point["infinite_elements"]) == (LONG, 7, 1)


def test_evidence_that_has_faded_is_no_suspicion(scene):
    """The largest evidence is kept; whether a point is suspected is a matter of today."""
    scene.calibrate(30)
    scene.serve((0.9, 1.01), *[(0.9, 0.9)] * 300, units=1)
    point = next(one for one in scene.model()["points"] if one["name"] == LONG)
    assert math.isclose(point["log10_evidence"], math.log10(31 / 2), rel_tol=1e-9)
    assert not point["suspected"]


def test_two_versions_at_the_same_time_are_told(scene):
    """A rolling update: the profile that reported last is judged, the other one is not hidden."""
    scene.calibrate(64)
    scene.serve((0.9, 0.9), (0.9, 0.9), (0.9, 0.9))
    scene.calibrate(65)
    scene.serve((0.9, 0.9), (0.9, 0.9))
    status, _, err = scene.shop.run("status", "net")
    assert status == 0
    assert "is not part of it: some processes serve another version" in err


def test_a_skipped_file_is_named_once(shop):
    shop.configure('[analyzer]\nstate_dirs = ["state"]\n[models.net]\n' + CONTRACT)
    (shop.root / "state").mkdir()
    (shop.root / "state" / "cut.state").write_bytes(b"CALI")
    _, _, err = shop.run("status")
    assert err.count("cut.state") == 1
    assert err.startswith("skipped: state file")
