"""Splits are disjoint, conditions do what they say, and one seed decides everything."""

import numpy as np
import pytest

from calidrift_analyzer.demo._data import (
    LOW_LIGHT,
    NOISE,
    PART_SIZES,
    Condition,
    Part,
    originals,
    pictures,
    see,
)

ALL = tuple(Condition)


def shared_sources(seeds: dict[Part, int]) -> set[int]:
    """Sources that appear in more than one part; the law says there are none."""
    seen: set[int] = set()
    shared: set[int] = set()
    for part, seed in seeds.items():
        sources = set(originals(part, seed).sources.tolist())
        shared |= seen & sources
        seen |= sources
    return shared


@pytest.mark.parametrize("seed", [0, 7])
def test_no_picture_is_in_two_parts(seed: int) -> None:
    assert shared_sources(dict.fromkeys(Part, seed)) == set()


def test_the_disjointness_law_can_fail() -> None:
    mutant = dict.fromkeys(Part, 0) | {Part.GATE: 1}
    assert shared_sources(mutant) != set()


def test_parts_use_every_picture_once() -> None:
    assert sum(PART_SIZES.values()) == 1797
    sources = np.concatenate([originals(part, 3).sources for part in Part])
    assert np.array_equal(np.sort(sources), np.arange(1797))


def test_a_picture_is_ink_on_white_paper() -> None:
    part = originals(Part.GATE, 0)
    assert part.images.shape == (PART_SIZES[Part.GATE], 1, 8, 8)
    assert part.images.dtype == np.float32
    assert part.images.min() == 0.0
    assert part.images.max() == 1.0
    assert np.median(part.images[:, 0, :, 0]) == 1.0, "the left margin is paper"


@pytest.mark.parametrize("condition", ALL)
def test_every_condition_stays_a_picture(condition: Condition) -> None:
    base = originals(Part.SELECT, 0).images
    before = base.copy()
    seen = see(base, condition, np.random.default_rng(0))
    assert seen.shape == base.shape
    assert seen.dtype == np.float32
    assert seen.min() >= 0.0
    assert seen.max() <= 1.0
    assert np.array_equal(base, before)


def test_conditions_change_what_they_name() -> None:
    base = originals(Part.SELECT, 0).images
    rng = np.random.default_rng(0)
    assert np.array_equal(see(base, Condition.ORIGINAL, rng), base)
    assert see(base, Condition.LOW_LIGHT, rng).max() == np.float32(LOW_LIGHT)
    contrast = see(base, Condition.HIGH_CONTRAST, rng)
    assert contrast.std() > base.std() * 1.05
    gray = np.full((400, 1, 8, 8), 0.5, np.float32)
    noisy = see(gray, Condition.NOISY, rng)
    # 25,600 draws clipped at 2 sigma keep 0.96 of the deviation; its standard error is 0.0011.
    assert noisy.std() == pytest.approx(NOISE * 0.9594, abs=0.005)


def test_pictures_stack_the_conditions_in_order() -> None:
    seen = pictures(Part.SELECT, 0, (Condition.NOISY, Condition.LOW_LIGHT))
    size = PART_SIZES[Part.SELECT]
    assert len(seen) == 2 * size
    assert set(seen.conditions[:size]) == {Condition.NOISY}
    assert set(seen.conditions[size:]) == {Condition.LOW_LIGHT}
    assert np.array_equal(seen.labels[:size], seen.labels[size:])
    assert np.array_equal(seen.sources[:size], seen.sources[size:])


def test_the_seed_decides_everything() -> None:
    once, again = (pictures(Part.REPORT, 4, ALL) for _ in range(2))
    other = pictures(Part.REPORT, 5, ALL)
    assert np.array_equal(once.images, again.images)
    assert not np.array_equal(once.sources, other.sources)


def test_rows_take_images_labels_and_conditions_together() -> None:
    seen = pictures(Part.SELECT, 0, ALL)
    order = np.random.default_rng(1).permutation(len(seen))
    mixed = seen.rows(order)
    assert np.array_equal(mixed.images, seen.images[order])
    assert np.array_equal(mixed.labels, seen.labels[order])
    assert mixed.conditions == tuple(seen.conditions[i] for i in order)
    assert np.array_equal(mixed.sources, seen.sources[order])
