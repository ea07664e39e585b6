"""A switch that ends what is under way, and forces what does not end."""

from calidrift_analyzer.deploy._halt import Halt


def test_who_is_under_way_is_asked_once_then_forced():
    halt, told = Halt(), []
    with halt.ending(lambda: told.append("asked"), lambda: told.append("forced")):
        halt.stop()
        halt.stop()
        assert told == ["asked"]
        halt.force()
        assert told == ["asked", "forced"]
    halt.force()
    assert told == ["asked", "forced"], "it has ended"


def test_what_begins_too_late_is_ended_at_once():
    halt, told = Halt(), []
    halt.force()

    with halt.ending(lambda: told.append("asked"), lambda: told.append("forced")):
        assert told == ["asked", "forced"]


def test_what_cannot_be_forced_is_asked_again():
    halt, told = Halt(), []
    with halt.ending(lambda: told.append("asked")):
        halt.force()

    assert told == ["asked", "asked"]
