"""Windows on their way to an analyzer: none lost and none twice, whatever fails."""

from __future__ import annotations

import numpy as np
import pytest

from calidrift_agent._sidecar._ship_figures import PushFailure
from calidrift_agent._vocabulary import WindowFlag


def test_new_windows_arrive_once(site, process):
    first, second = process(), process()
    first.close_windows(2)
    second.close_windows(1)
    assert site.look() is None
    site.check(first, second)
    asked = site.analyzer.asked
    assert site.look() is None
    assert site.analyzer.asked == asked, "nothing is new: nothing is asked"
    first.close_windows(3)
    assert site.look() is None
    site.check(first, second)
    assert site.figures.pushed == 6
    flags = [window.flags for kept in site.analyzer.windows.values() for window in kept]
    assert not any(flag & WindowFlag.COARSE for flag in flags)


def test_what_the_ring_lost_arrives_as_one_coarse_window(site, process):
    one = process()
    one.close_windows(1)
    site.look()
    one.close_windows(9)
    assert site.look() is None
    site.check(one)
    flags = [
        bool(window.flags & WindowFlag.COARSE) for window in site.analyzer.windows[one.meta.process]
    ]
    assert flags.count(True) == 1


FAULTS = ("reset", "lost", "half", 500, 503, 429, 401, 404, 302)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_failure_at_any_request_loses_and_doubles_nothing(site, process, fault, place):
    """Places: the greeting, the first windows, and the question for sums or what follows."""
    one = process()
    one.close_windows(6)  # more than the ring has
    site.analyzer.plan = [200] * place + [fault]
    for _ in range(4):
        site.look()
        one.close_windows(7)  # what is sent again is not what was sent
    site.look_until_done()
    site.check(one)
    assert sum(site.figures.failures.values()) <= 1


@pytest.mark.parametrize("seed", range(4))
def test_random_faults_deaths_and_restarts_lose_and_double_nothing(site, process, seed):
    rng = np.random.default_rng(seed)
    living, everybody = [], []
    for _ in range(25):
        if len(living) < 2:
            living.append(process())
            everybody.append(living[-1])
        site.analyzer.down = bool(rng.random() < 0.4)
        site.analyzer.plan = [
            str(one) if not str(one).isdigit() else int(one)
            for one in rng.choice(["200", "200", "lost", "reset", "half", "500"], 3)
        ]
        for one in living:
            one.close_windows(int(rng.integers(0, 4)))
        if rng.random() < 0.2:
            living.pop(0).die(open_requests=int(rng.integers(0, 3)))
        if rng.random() < 0.2:
            site.restart()
        site.look()
        site.sweep_secured()
    site.analyzer.down, site.analyzer.plan = False, []
    site.look_until_done()
    site.check(*everybody)


def test_too_large_bodies_are_split(site, process):
    one = process()
    one.close_windows(3)
    site.look()
    one.close_windows(4)
    site.analyzer.most_windows = 1
    assert site.look() is None
    site.check(one)
    assert max(count for count, _ in site.analyzer.bodies[-4:]) == 1
    site.analyzer.down = True
    one.close_windows(4)
    site.look()
    site.analyzer.down = False
    assert site.look() is None
    site.check(one)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_never_taken_is_set_aside_once(site, process, status, caplog):
    one, other = process(), process()
    one.close_windows(1)
    other.close_windows(1)
    site.analyzer.plan = [200, status]
    assert site.look() is None
    assert (site.figures.lost, site.figures.pushed) == (1, 1)
    assert site.figures.failures[PushFailure.REFUSED] == 1
    assert len([record for record in caplog.records if "will not take" in record.message]) == 1
    asked = site.analyzer.asked
    site.restart()
    assert site.look() is None
    assert site.analyzer.asked <= asked + 1, "it is not sent again, not even after a restart"
    one.close_windows(1)
    other.close_windows(1)
    site.look()
    assert site.figures.pushed == 3


def test_a_failing_process_does_not_hold_up_the_others(site, process):
    some = [process() for _ in range(3)]
    for one in some:
        one.close_windows(1)
    site.analyzer.plan = [500]
    assert site.look().kind is PushFailure.UNAVAILABLE
    assert site.figures.pushed == 2


def test_an_analyzer_that_lost_its_database_gets_everything_again(site, process):
    one = process()
    one.close_windows(7)
    site.look()
    site.analyzer.windows.clear()
    site.restart()
    one.close_windows(1)
    site.look_until_done()
    site.check(one)


def test_another_analyzer_begins_anew(site, process, make_analyzer):
    one = process()
    one.close_windows(2)
    site.look()
    site.analyzer = make_analyzer()
    site.restart()
    site.look()
    site.check(one)


def test_a_refused_list_of_captures_does_not_hold_up_windows(site, process):
    one = process()
    one.close_windows(2)
    folder = site.folder / "captures" / one.meta.process
    folder.mkdir(parents=True)
    (folder / "x.safetensors").write_bytes(b"damaged")
    site.analyzer.plan = [400]
    assert site.look() is None
    site.check(one)
    assert site.figures.failures[PushFailure.REFUSED] == 1


def test_refused_sums_are_not_asked_for_again(site, process):
    one = process()
    one.close_windows(1)
    site.look()
    one.close_windows(9)
    site.analyzer.plan = [422]
    site.look()
    assert site.figures.lost == 9
    one.close_windows(1)
    assert site.look() is None
    assert site.figures.pushed == 2
