"""`calidrift reference` over a state directory, a database and a registry."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from calidrift_agent._profile import CalibrationProfile, ReferenceOrigin
from calidrift_agent._registry import (
    FORMAT,
    MANIFEST_FILE,
    Pointer,
    VersionLayout,
    identity_of,
    list_versions,
    open_version,
)
from calidrift_agent._state import StateWriter, Window
from calidrift_agent._vocabulary import Instrument, ReferenceSource
from calidrift_analyzer.store import Store

CONFIG = """
[analyzer]
state_dirs = ["state"]
database = "x.duckdb"

[models.net]
factory = "shop_code:build"
example_inputs = "shop_code:example"
calibration = "shop_code:calibration"
evaluate = "shop_code:evaluate"
reference_units = 40
"""
POINTS = ("conv1:input", "fc:input")


class Service:
    """Processes that serve under a profile, and the registry they load it from."""

    def __init__(self, shop, traffic):
        self.shop, self.traffic = shop, traffic
        self.state = shop.root / "state"
        self.registry = shop.root / "registry"
        (self.state / "profiles").mkdir(parents=True)
        shop.configure(CONFIG)

    def profile(self, origin=ReferenceSource.PROVISIONAL, **changes):
        rng = np.random.default_rng(1)
        profile = self.traffic.profile({name: rng.normal(size=(512, 32)) for name in POINTS})
        return replace(profile, reference=ReferenceOrigin(source=origin), **changes)

    def ranges(self):
        profile = self.profile(ReferenceSource.CALIBRATION, units=0)
        points = {
            name: replace(one, observed_bound=None, sketch=None)
            for name, one in profile.points.items()
        }
        return replace(profile, points=points)

    def serve(self, profile, *scales, number=0, **meta):
        """One window of ten units for each scale, written as an agent does."""
        profile.save(self.state / "profiles" / f"{profile.digest}.json")
        bounds = [
            one.observed_bound.value if one.observed_bound else None
            for one in profile.points.values()
        ]
        made = self.traffic.meta(points=POINTS, profile=profile.digest, **meta)
        writer = StateWriter.create(self.state, made)
        total = None
        for offset, scale in enumerate(scales):
            values = [self.traffic.rng.normal(size=(10, 32)) * scale for _ in POINTS]
            window = self.traffic.unit_window(number + offset, values, bounds, seen=100)
            window = replace(window, number=offset)
            writer.write_closed(window)
            total = window if total is None else total.plus(window)
            writer.write_cumulative(total or Window.empty(2))
        writer.close()

    def publish(self, profile, number=1):
        """A version as a promotion leaves it."""
        layout = VersionLayout(self.registry, "net")
        layout.versions.mkdir(parents=True)
        folder = layout.versions / "new"
        folder.mkdir()
        (folder / "model.pt2").write_bytes(b"the model" * 100)
        (folder / "report.json").write_text("{}")
        profile.save(folder / "profile.json")
        files = {
            path.name: {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "bytes": path.stat().st_size,
            }
            for path in folder.iterdir()
        }
        manifest = {
            "format": FORMAT,
            "model": "net",
            "number": number,
            "profile": profile.digest,
            "parent": None,
            "files": files,
        }
        content = json.dumps(manifest).encode()
        (folder / MANIFEST_FILE).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        identity = identity_of(number, digest)
        folder.rename(layout.version(identity))
        layout.pointer.write_text(Pointer(identity, digest).to_json())
        return identity

    def serving(self):
        version = open_version(self.registry, "net")
        return version, CalibrationProfile.load(version.profile_path)


@pytest.fixture
def service(shop, traffic):
    return Service(shop, traffic)


CALM = (0.9,) * 5


def test_a_promoted_version_gets_a_reference_of_its_own(service, shop):
    provisional = service.profile()
    before = service.publish(provisional)
    service.serve(provisional, *CALM)
    status, document = shop.json("reference", "learn", "net")
    assert status == 0
    version, profile = service.serving()
    assert (version.parent, document["version"]) == (before, version.id)
    assert document["profile"] == profile.digest
    assert (document["units"], document["changed"], document["unobserved"]) == (40, True, [])
    assert profile.reference.learned_from == provisional.digest == document["learned_from"]
    bounds = [one.observed_bound for one in profile.points.values()]
    assert {(bound.rank, bound.units) for bound in bounds} == {(1, 40)}
    with Store.open(shop.root / "x.duckdb") as store:
        (row,) = store.outcomes.versions("net")
        assert (row.version, row.action, row.profile) == (version.id, "learned", profile.digest)
        assert store.profile(profile.digest) == profile


def test_learning_again_changes_nothing(service, shop):
    provisional = service.profile()
    service.publish(provisional)
    service.serve(provisional, *CALM)
    shop.run("reference", "learn")
    first = service.serving()[0].id
    status, document = shop.json("reference", "learn")
    assert (status, document["changed"], document["version"]) == (0, False, first)
    # Nor once the service has loaded it.
    learned = service.serving()[1]
    service.serve(learned, 0.5, 0.5, number=9)
    status, out, _ = shop.run("reference", "learn")
    assert status == 0
    assert out.startswith("nothing to do: version 000002-")
    assert len(list_versions(service.registry, "net")) == 2
    with Store.open(shop.root / "x.duckdb") as store:
        assert len(store.outcomes.versions("net")) == 1


def test_a_record_that_was_lost_is_made_up(service, shop):
    provisional = service.profile()
    service.publish(provisional)
    service.serve(provisional, *CALM)
    shop.run("reference", "learn")
    (shop.root / "x.duckdb").unlink()  # as if killed between the registry and the database
    assert shop.run("reference", "learn")[0] == 0
    with Store.open(shop.root / "x.duckdb") as store:
        assert [row.action for row in store.outcomes.versions("net")] == ["learned"]


def test_after_it_the_evidence_speaks(service, shop):
    provisional = service.profile()
    service.publish(provisional)
    service.serve(provisional, *CALM)
    _, before = shop.json("status")
    assert before["models"][0]["verdict"] == "learning"
    shop.run("reference", "learn", "--units", "50")
    learned = service.serving()[1]
    service.serve(learned, 0.9, 0.9, number=9)
    _, calm = shop.json("status")
    assert calm["models"][0]["burn_in"] is None
    assert calm["models"][0]["points"][0]["log10_evidence"] is not None
    service.serve(learned, *[30.0] * 4, number=20)
    _, drifted = shop.json("status")
    assert drifted["models"][0]["verdict"] == "drifted_harmful"
    assert drifted["models"][0]["alarm"] is not None


def test_ranges_only_get_bounds_in_a_file(service, shop):
    service.shop.configure(CONFIG.partition("[models.net]")[0])
    service.serve(service.ranges(), *CALM)
    target = shop.root / "learned.json"
    status, out, _ = shop.run("reference", "learn", "net", "--units", "35", "--output", str(target))
    assert status == 0
    assert "learned: 40 random units of net" in out
    assert "give it to watch(..., profile=...)" in out
    profile = CalibrationProfile.load(target)
    assert profile.unobserved == ()
    assert profile.units == 40
    text = target.read_text()
    status, document = shop.json(
        "reference", "learn", "net", "--units", "35", "--output", str(target)
    )
    assert (status, document["changed"], document["version"]) == (0, False, None)
    assert target.read_text() == text


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("learn", "--units", "80"), 1, "50 of 80 random units of net were observed"),
        (("learn", "--profile", "abc"), 2, "no unit of net was observed under a profile 'abc'"),
        (("learn", "nobody", "--output", "x.json"), 2, "nothing was recorded about model 'nobody'"),
        (("learn", "nobody"), 2, "is not declared"),
        (("show", "--force"), 2, "only looks"),
        (("forget",), 2, "forget"),
        (("learn", "--units", "1"), 2, "greater than or equal to 2"),
    ],
    ids=["too few", "no profile", "no model", "not declared", "show", "action", "one unit"],
)
def test_refusals_are_one_sentence_and_change_nothing(service, shop, words, status, said):
    provisional = service.profile()
    before = service.publish(provisional)
    service.serve(provisional, *CALM)
    found, _, err = shop.run("reference", *words)
    assert found == status
    assert said in err
    assert err.count("\n") == 1
    assert service.serving()[0].id == before


def test_drifting_traffic_needs_force(service, shop):
    provisional = service.profile()
    before = service.publish(provisional)
    service.serve(provisional, 0.9, *[9.0] * 4)
    status, _, err = shop.run("reference", "learn")
    assert status == 1
    assert "10 of 20 units left the ranges, 1 % are tolerated" in err
    assert "--force" in err
    assert service.serving()[0].id == before
    assert shop.run("reference", "learn", "--force")[0] == 0
    assert service.serving()[0].parent == before


def test_suspected_traffic_needs_force(service, shop):
    shop.configure(CONFIG + "tolerance = 0.95\n")  # so that no alarm comes of it
    provisional = service.profile()
    before = service.publish(provisional)
    service.serve(provisional, *[0.9] * 3, *[9.0] * 4)
    status, _, err = shop.run("reference", "learn")
    assert status == 1
    assert "2 of 2 points are suspected, worst " in err
    assert "--force" in err
    assert service.serving()[0].id == before
    assert shop.run("reference", "learn", "--force")[0] == 0


def test_two_versions_at_once_are_refused_until_one_is_named(service, shop):
    provisional = service.profile()
    service.publish(provisional)
    service.serve(replace(provisional, created="2031-01-01T00:00:00+00:00"), *CALM, 0.9, 0.9)
    service.serve(provisional, *CALM, number=3)
    status, _, err = shop.run("reference", "learn", "--units", "20")
    assert status == 1
    assert "ran under several profiles" in err
    words = ("--units", "20", "--profile", provisional.digest[:12])
    status, document = shop.json("reference", "learn", *words)
    assert (status, document["units"]) == (0, 20)


def test_two_instruments_are_refused(service, shop):
    provisional = service.profile()
    service.publish(provisional)
    service.serve(provisional, *CALM)
    service.serve(provisional, *CALM, instrument=Instrument.CLIP)
    status, _, err = shop.run("reference", "learn")
    assert status == 1
    assert "two instruments (clip and range)" in err


def test_another_version_in_service_is_refused(service, shop):
    provisional = service.profile()
    service.publish(service.profile(created="2031-01-01T00:00:00+00:00"))
    service.serve(provisional, *CALM)
    status, _, err = shop.run("reference", "learn")
    assert status == 1
    assert "serves with profile" in err


def test_a_service_without_a_profile_is_told_so(service, shop):
    provisional = service.profile()
    service.serve(provisional, *CALM)
    for path in (service.state / "profiles").iterdir():
        path.unlink()
    status, _, err = shop.run("reference", "learn")
    assert status == 1
    assert "was not collected" in err


def test_show_says_what_the_bounds_are_made_of(service, shop):
    provisional = service.profile()
    service.publish(provisional)
    service.serve(provisional, 0.9, 0.9)
    _, out, _ = shop.run("reference", "show")
    assert "its bounds are provisional" in out
    assert "20 random units were observed under it, 40 are wanted, in about 2 s" in out
    _, document = shop.json("reference", "show", "net")
    assert (document["source"], document["measured_units"]) == ("provisional", 20)
    assert document["learn"] is True
    service.serve(provisional, 0.9, 0.9, 0.9, number=5)
    _, out, _ = shop.run("reference", "show")
    assert "run `calidrift reference learn`" in out
    shop.run("reference", "learn")
    service.serve(service.serving()[1], 0.5, number=30)
    _, out, _ = shop.run("reference", "show")
    assert "its bounds are of 40 units of production, observed from 2027-01-15T08:00" in out
    _, document = shop.json("reference", "show")
    assert (document["source"], document["learn"]) == ("production", False)


def test_show_names_ranges_and_calibration_sets(service, shop):
    service.serve(service.ranges(), 0.9)
    _, out, _ = shop.run("reference", "show", "net")
    assert "it has ranges only and no observed bound" in out
    _, document = shop.json("reference", "show", "net")
    assert document["source"] is None
    service.serve(service.profile(ReferenceSource.CALIBRATION), 0.9, number=50)
    _, out, _ = shop.run("reference", "show", "net")
    assert "its bounds are of 512 units of a calibration set" in out


def test_the_model_may_be_left_out_where_only_one_was_recorded(service, shop):
    service.shop.configure(CONFIG.partition("[models.net]")[0])
    status, _, err = shop.run("reference", "show")
    assert (status, "name the model" in err) == (2, True)
    service.serve(service.ranges(), 0.9)
    assert shop.run("status")[0] == 0
    assert shop.run("reference", "show")[0] == 0
    service.serve(service.ranges(), 0.9, model="other")
    status, _, err = shop.run("reference", "show")
    assert status == 2
    assert "which model? recorded are: net, other" in err
