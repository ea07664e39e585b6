"""The plot: two files that show every condition, the same for the same figures."""

import sys

from calidrift_analyzer.demo._plot import plot_maxima

POINTS = ("stem:input", "head:input")
MAXIMA = {"original": (1.0, 8.0), "low-light": (0.15, 5.0), "noisy": (1.0, 9.0)}
RANGES = {"INT8 range before": (0.15, 5.0), "INT8 range after": (1.0, 9.0)}


def test_both_files_are_written_with_one_line_per_condition(tmp_path):
    png, svg = plot_maxima(tmp_path / "maxima", POINTS, MAXIMA, RANGES)

    assert png.read_bytes().startswith(b"\x89PNG\r\n")
    drawn = svg.read_text(encoding="utf-8")
    for word in (*MAXIMA, *RANGES, *POINTS):
        assert f">{word}<" in drawn


def test_the_same_figures_give_the_same_bytes(tmp_path):
    first = plot_maxima(tmp_path / "one", POINTS, MAXIMA, RANGES)
    second = plot_maxima(tmp_path / "two", POINTS, MAXIMA, RANGES)

    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_another_maximum_gives_another_plot(tmp_path):
    _, first = plot_maxima(tmp_path / "one", POINTS, MAXIMA, RANGES)
    _, second = plot_maxima(tmp_path / "two", POINTS, {**MAXIMA, "noisy": (1.0, 20.0)}, RANGES)

    assert first.read_bytes() != second.read_bytes()


def test_pyplot_and_its_global_state_are_not_needed(tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    plot_maxima(tmp_path / "maxima", POINTS, MAXIMA, RANGES)
    assert ("matplotlib.pyplot" in sys.modules) == before
