"""Harm without labels: do served outputs differ from those of FP32 by more than is tolerated?

Agents that were given a reference model run it beside sampled requests and count a loss in [0, 1]
for each compared unit: another most likely class (0 or 1) in windows whose compared outputs all
have classes, in others the noise energy relative to the signal. The null is "the mean loss of a
unit, given those before it, is at most m0". The test bets against it with every constant stake at
once: a stake lambda multiplies the capital by 1 + lambda (x - m0) for a unit with loss x,
0 <= lambda <= 1/m0. With the stakes that belong to the alternatives p1 in (m0, 1], equally likely,
the capital is at least

    E(S, t) = B(1+S, 1+t-S) · I'(1+S, 1+t-S; m0) / ( (1-m0) · m0^S (1-m0)^(t-S) )

of `_tolerance`, with S the sum of losses and t their number, and exactly that for outcomes 0 and 1
(convexity; the proof stands there). So only sums per window are needed, and it does not matter how
units fall into windows or processes: capital that bets on window means, 1 + lambda (mean - m0),
would give a window of a thousand units no more weight than one of a single unit, and would change
with every rollup. Losses that vary little (noise) pay for this: bets that adapt to the variance
(Waudby-Smith and Ramdas 2024) find a small excess of such losses sooner.

Worked numbers, m0 = 5 %, alpha = 5 %, disagreement that comes evenly: found after 294 compared
units at 10 %, 34 at 20 %, 5 at 50 %.

Sources: Waudby-Smith and Ramdas, J. R. Stat. Soc. B 2024; Podkopaev and Ramdas, "Tracking the risk
of a deployed model", ICLR 2022; for the convex bound Hoeffding 1963 and Howard, Ramdas, McAuliffe
and Sekhon, Probab. Surveys 17 (2020).
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from calidrift_analyzer.assess._rules import AssessRules
from calidrift_analyzer.assess._tolerance import (
    confidence_sequence,
    log_tolerance_evidence,
    units_to_breach,
)
from calidrift_analyzer.records import (
    ComparedHistory,
    HarmBreach,
    HarmLoss,
    Interval,
    MeasuredHarm,
    ModelHistory,
)

__all__ = ["harm_looks", "measured_harm", "since_drift"]

_LN10: Final = math.log(10.0)
_BILLION: Final = 1_000_000_000


def measured_harm(history: ModelHistory, rules: AssessRules) -> MeasuredHarm | None:
    """Test the losses of all compared units.

    Guarantee: while the mean loss is at most `rules.harm_tolerance`, a breach ever comes with
    probability at most `rules.alpha`, however often one looks.

    Args:
        history: Windows in the order of looks.
        rules: Tolerated mean loss and false alarm probability.

    Returns:
        What was found; None where nothing was compared.

    Cost: 0.5 us per window.
    """
    compared = history.compared
    if compared is None:
        return None
    sums, counts = np.cumsum(_lost_ppb(compared)) / _BILLION, np.cumsum(compared.compared)
    mean = confidence_sequence(float(sums[-1]), int(counts[-1]))
    if mean is None:
        return None
    log_threshold = math.log(1.0 / rules.alpha)
    evidence = log_tolerance_evidence(sums, counts, rules.harm_tolerance)
    crossed = np.flatnonzero(evidence >= log_threshold)
    breach = None
    if crossed.size:
        first = int(crossed[0])
        end_ns = int(history.end_ns[compared.looks[first]])
        breach = HarmBreach(end_ns, int(counts[first]), float(sums[first]))
    return MeasuredHarm(
        loss=_loss(compared),
        units=int(counts[-1]),
        total=float(sums[-1]),
        mean=mean,
        recent=None,
        tolerance=rules.harm_tolerance,
        log10_evidence=max(0.0, float(evidence.max())) / _LN10,
        log10_threshold=log_threshold / _LN10,
        breach=breach,
        units_to_breach=units_to_breach(
            min(1.0, 2 * rules.harm_tolerance), rules.harm_tolerance, log_threshold
        ),
    )


def since_drift(history: ModelHistory, begun: int) -> Interval | None:
    """Mean loss of the looks after a row of the history; None where nothing was compared."""
    compared = history.compared
    if compared is None:
        return None
    later = compared.looks > begun
    lost = int(_lost_ppb(compared)[later].sum())
    return confidence_sequence(lost / _BILLION, int(compared.compared[later].sum()))


def harm_looks(history: ModelHistory, rules: AssessRules) -> tuple[int, ...]:
    """Looks at which evidence was largest or became a breach: none is joined across these."""
    compared = history.compared
    if compared is None:
        return ()
    sums, counts = np.cumsum(_lost_ppb(compared)) / _BILLION, np.cumsum(compared.compared)
    evidence = log_tolerance_evidence(sums, counts, rules.harm_tolerance)
    crossed = np.flatnonzero(evidence >= math.log(1.0 / rules.alpha))[:1]
    rising = [int(evidence.argmax())] if evidence.max() > 0.0 else []
    return tuple(sorted({int(compared.looks[look]) for look in (*rising, *crossed)}))


def _lost_ppb(compared: ComparedHistory) -> NDArray[np.int64]:
    """Sum of the losses of each look, in billionths: whole numbers, whatever they are joined to.

    Which loss a window has depends on its own outputs' shape only, so what is counted of earlier
    windows, and with it a breach, stays what it is whatever comes later.
    """
    return (compared.ranked - compared.agreed) * _BILLION + compared.noise_ppb


def _loss(compared: ComparedHistory) -> HarmLoss:
    """Which loss most units have."""
    most = 2 * int(compared.ranked.sum()) >= int(compared.compared.sum())
    return HarmLoss.DISAGREEMENT if most else HarmLoss.NOISE
