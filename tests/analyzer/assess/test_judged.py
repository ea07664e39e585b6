"""Which profile a model is judged by: what serves, else what was recorded last."""

from dataclasses import replace

import pytest

from calidrift_agent._registry import PROFILE_FILE, Pointer, VersionLayout
from calidrift_analyzer.assess import assess_stored, judged
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.records import Verdict
from calidrift_analyzer.store import _writing

SECOND = 10**9
HOUR = 3_600 * SECOND
START = 1_790_000_000 * SECOND


class Clock:
    """The analyzer's clock."""

    def __init__(self) -> None:
        self.now = START

    def time_ns(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(_writing, "time", found)
    return found


@pytest.fixture
def contract(tmp_path):
    return ModelContract(
        name="net",
        root=tmp_path,
        factory="user:factory",
        example_inputs="user:example_inputs",
        calibration="user:calibration",
        evaluate="user:evaluate",
        registry=tmp_path / "registry",
    )


class Fleet:
    """Processes under several profiles, and a registry that says which of them serves."""

    def __init__(self, bench, clock, contract) -> None:
        self.bench, self.clock, self.contract = bench, clock, contract
        self.versions = 0

    def profile(self):
        """Calibrate anew: another profile, with the meta of a process under it."""
        self.bench.calibrate({"a:input": self.bench.normal(256)})
        self.bench.store.put_profile(self.bench.profile)
        return self.bench.profile, self.bench.meta

    def report(self, made, number=0, *, ahead_ns=0, scale=1.0):
        """Let the process send one window, whose clock is ahead of the analyzer's."""
        profile, meta = made
        bound = profile.points["a:input"].observed_bound.value
        end_ns = self.clock.now + ahead_ns
        window = self.bench.traffic.unit_window(number, [self.bench.normal(40, scale)], [bound])
        window = replace(window, start_ns=end_ns - SECOND, end_ns=end_ns)
        store = self.bench.store
        store.ingest(meta, [window], batch=store.next_batch())
        self.clock.now += 10 * SECOND

    def serve(self, made):
        """Let the registry point to a version with that profile."""
        self.versions += 1
        layout = VersionLayout(self.contract.registry, "net")
        digest = f"{self.versions:064x}"
        identity = f"{self.versions:06d}-{digest[:16]}"
        folder = layout.version(identity)
        folder.mkdir(parents=True)
        made[0].save(folder / PROFILE_FILE)
        layout.pointer.write_text(Pointer(identity, digest).to_json(), encoding="utf-8")

    def judged(self, contract=None):
        found = judged(self.bench.store, "net", contract)
        return None if found is None else found.profile


@pytest.fixture
def fleet(bench, clock, contract):
    return Fleet(bench, clock, contract)


def test_nothing_is_judged_where_nothing_was_recorded(fleet, contract):
    assert fleet.judged(contract) is None


def test_a_clock_that_is_ahead_makes_a_process_the_newest_only_until_others_report(fleet):
    """Without a version that serves: what came last, whatever its clock says."""
    honest, wrong = fleet.profile(), fleet.profile()
    fleet.report(honest, scale=3.0)
    fleet.report(wrong, ahead_ns=23 * HOUR)
    assert fleet.judged() == wrong[0].digest
    fleet.report(honest, 1, scale=3.0)

    assert fleet.judged() == honest[0].digest
    assert assess_stored(fleet.bench.store, "net").verdict is Verdict.DRIFTED_HARMFUL


def test_what_waited_in_a_spool_is_as_old_as_it_is(fleet):
    old, new = fleet.profile(), fleet.profile()
    fleet.report(new)
    fleet.report(old, ahead_ns=-5 * HOUR)

    assert fleet.judged() == new[0].digest


@pytest.mark.parametrize("ahead_ns", [0, 23 * HOUR, -23 * HOUR], ids=["right", "ahead", "behind"])
def test_the_version_that_serves_is_judged_whatever_others_report(ahead_ns, fleet, contract):
    """A push under the name of the model, or a process on an old version, hides no drift."""
    serving, other = fleet.profile(), fleet.profile()
    fleet.serve(serving)
    for number in range(4):
        fleet.report(serving, number, scale=3.0)
        fleet.report(other, number, ahead_ns=ahead_ns)

    assert fleet.judged(contract) == serving[0].digest
    found = assess_stored(fleet.bench.store, "net", contract=contract)
    assert found.profile == serving[0].digest
    assert found.verdict is Verdict.DRIFTED_HARMFUL


def test_a_clock_that_is_behind_keeps_the_version_that_serves_judged(fleet, contract):
    serving, other = fleet.profile(), fleet.profile()
    fleet.serve(serving)
    fleet.report(serving, ahead_ns=-48 * HOUR)
    fleet.report(other)

    assert fleet.judged(contract) == serving[0].digest


def test_a_version_that_nobody_reports_is_not_judged_yet(fleet, contract):
    """Promoted, but not loaded; then loaded by the first process; then rolled back."""
    before, after = fleet.profile(), fleet.profile()
    fleet.report(before)
    fleet.serve(after)
    assert fleet.judged(contract) == before[0].digest
    fleet.report(after)
    fleet.report(before, 1)
    assert fleet.judged(contract) == after[0].digest
    fleet.serve(before)
    assert fleet.judged(contract) == before[0].digest


def test_a_version_that_is_silent_while_others_report_is_not_what_runs(fleet, contract):
    serving, other = fleet.profile(), fleet.profile()
    fleet.serve(serving)
    fleet.report(serving)
    fleet.clock.now += HOUR - 11 * SECOND
    fleet.report(other)
    assert fleet.judged(contract) == serving[0].digest
    fleet.clock.now += 10 * SECOND
    fleet.report(other, 1)

    assert fleet.judged(contract) == other[0].digest


def test_a_registry_that_cannot_be_read_leaves_what_was_recorded_last(fleet, contract):
    serving, other = fleet.profile(), fleet.profile()
    fleet.report(serving)
    fleet.report(other)
    pointer = VersionLayout(contract.registry, "net").pointer
    pointer.parent.mkdir(parents=True)
    pointer.write_text("{", encoding="utf-8")
    assert fleet.judged(contract) == other[0].digest
    fleet.serve(serving)
    folder = next(VersionLayout(contract.registry, "net").versions.iterdir())
    (folder / PROFILE_FILE).write_text("{", encoding="utf-8")

    assert fleet.judged(contract) == other[0].digest
