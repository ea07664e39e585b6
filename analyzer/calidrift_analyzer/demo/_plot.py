"""The plot of the demo: how far activations reach, layer by layer and condition by condition."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["plot_maxima"]

_COLORS: Final = ("#0072b2", "#000000", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
"""Okabe and Ito's palette: the lines can be told apart by everybody."""
_MARKERS: Final = "osD^vP"


def plot_maxima(
    stem: Path,
    points: Sequence[str],
    maxima: Mapping[str, Sequence[float]],
    ranges: Mapping[str, Sequence[float]],
) -> tuple[Path, Path]:
    """Draw layer-wise activation maxima, one line per condition, beside INT8 ranges.

    Args:
        stem: Where to write, without suffix.
        points: P point names, in the order of the network.
        maxima: By condition, P largest magnitudes.
        ranges: By name, P ends of INT8 ranges, drawn as steps without markers.

    Returns:
        The PNG and the SVG file. The SVG keeps its text as text, and the same figures give the
        same bytes.
    """
    # Figure, not pyplot: no global state and no display, whatever backend is configured.
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places = list(range(len(points)))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "calidrift"}):
        figure = Figure(figsize=(9.0, 5.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for (name, values), style in zip(ranges.items(), ("--", ":"), strict=False):
            axes.plot(places, values, style, color="0.45", linewidth=2.0, label=name)
        for index, (name, values) in enumerate(maxima.items()):
            color, marker = _COLORS[index % len(_COLORS)], _MARKERS[index % len(_MARKERS)]
            axes.plot(places, values, color=color, marker=marker, markersize=5, label=name)
        axes.set_yscale("log")
        axes.set_xticks(places, points, rotation=35, ha="right", fontsize=8)
        axes.set_ylabel("largest |activation|")
        axes.set_title("Activation maxima by layer and condition")
        axes.grid(visible=True, which="both", axis="y", alpha=0.25)
        axes.legend(fontsize=8)
        png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
        figure.savefig(png, dpi=150, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None})
    return png, svg
