"""Which points to look at first, with a bound on the share of wrong ones: e-BH."""

from collections.abc import Mapping
from math import log

__all__ = ["triage"]


def triage(log_evidence: Mapping[str, float], alpha: float = 0.05) -> tuple[str, ...]:
    """Points that stand out *now*, the strongest evidence first.

    The k largest e-values are listed where the k-th is at least L / (k alpha), for the largest
    such k (Wang and Ramdas, J. R. Stat. Soc. B 2022). Guarantee: the expected share of points in
    the list that have not drifted is at most `alpha`, under any dependence between points. It
    holds for the current evidence only, not for its running maximum (arXiv:2501.19360), so this
    list sorts a table and never raises an alarm: alarms need L / alpha.

    Args:
        log_evidence: Point to the natural logarithm of its current evidence; L = their number.
        alpha: Expected share of wrong ones, in (0, 1).

    Example:
        >>> triage({"a": log(1000.0), "b": log(30.0), "c": log(2.0)}, alpha=0.1)
        ('a', 'b')
    """
    ranked = sorted(log_evidence.items(), key=lambda item: item[1], reverse=True)
    listed = 0
    for place, (_, value) in enumerate(ranked, 1):
        if value >= log(len(ranked) / (place * alpha)):
            listed = place
    return tuple(name for name, _ in ranked[:listed])
