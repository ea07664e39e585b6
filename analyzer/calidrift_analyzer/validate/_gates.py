"""The gate: every condition of promotion, each one closed where its figure is missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.records import Gate, GateName, HeldOutCoverage, KernelReport, Sizes

__all__ = ["Evidence", "gates_of"]

LABEL_FREE_SQNR_DB: Final = 20.0
"""Without labels: error energy of at most 1 % of the output's."""

PARITY_DB: Final = 40.0
"""Compiled against q/dq graph: error energy of at most 1e-4 of the output's."""

_TWO_ROUNDINGS_DB: Final = 3.0
_SHOWN: Final = 5
_ROUNDING: Final = 1e-9
"""3 of 300 answers are exactly one point, whatever float64 makes of it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the gates judge; all figures of the compiled winner on the gate split.

    Attributes:
        fp32_accuracy: FP32 metric; `None` without labels.
        int8_accuracy: INT8 metric; `None` without labels.
        agreement: Share of samples with FP32's decision; `None` for outputs that are no scores.
        sqnr_db: Output SQNR against FP32; `None` where it is not a finite number.
        simulated_sqnr_db: Output SQNR of the q/dq graph against FP32; `None` likewise. What parity
            may be is judged by it, and not by the compiled output that is under test.
        parity_db: Output SQNR against the q/dq graph; `None` where it is not a finite number.
        identical: Whether compiled and q/dq outputs are equal bit for bit.
        sizes: Bytes.
        kernels: Kernels against the plan.
        coverage: Held-out requests.
    """

    fp32_accuracy: float | None
    int8_accuracy: float | None
    agreement: float | None
    sqnr_db: float | None
    simulated_sqnr_db: float | None
    parity_db: float | None
    identical: bool
    sizes: Sizes
    kernels: KernelReport
    coverage: HeldOutCoverage


def gates_of(evidence: Evidence, contract: ModelContract) -> tuple[Gate, ...]:
    """Judge a candidate.

    Args:
        evidence: What was measured.
        contract: The limits.

    Returns:
        Every gate that applies. A figure that is missing fails its gate.
    """
    return (
        *_quality(evidence, contract),
        _size(evidence.sizes, contract),
        _kernels(evidence.kernels),
        _parity(evidence),
        _coverage(evidence.coverage, contract),
    )


def _quality(evidence: Evidence, contract: ModelContract) -> Sequence[Gate]:
    allowed = contract.max_accuracy_drop
    fp32, int8 = evidence.fp32_accuracy, evidence.int8_accuracy
    if fp32 is not None and int8 is not None:
        drop = fp32 - int8
        passed = drop <= allowed + _ROUNDING
        sentence = (
            f"INT8 accuracy is {int8:.4f} on the gate split and FP32 {fp32:.4f}, a drop of "
            f"{100 * drop:.2f} points; at most {100 * allowed:.2f} are allowed"
        )
        advice = "; select more samples of the traffic that suffers, or allow another estimator"
        return [Gate(GateName.ACCURACY, passed, drop, allowed, _say(sentence, passed, advice))]
    gates = []
    if evidence.agreement is not None:
        required = 1 - allowed
        passed = evidence.agreement >= required - _ROUNDING
        sentence = (
            f"there are no labels: {100 * evidence.agreement:.2f} % of the decisions on the gate "
            f"split are FP32's; at least {100 * required:.2f} % are required"
        )
        advice = "; give labels in evaluate, or recalibrate with more samples"
        gates.append(
            Gate(
                GateName.AGREEMENT,
                passed,
                evidence.agreement,
                required,
                _say(sentence, passed, advice),
            )
        )
    sqnr = evidence.sqnr_db
    passed = sqnr is not None and sqnr >= LABEL_FREE_SQNR_DB
    shown = "could not be measured" if sqnr is None else f"is {sqnr:.1f} dB"
    sentence = (
        f"there are no labels: output SQNR against FP32 {shown} on the gate split; "
        f"at least {LABEL_FREE_SQNR_DB:.0f} dB are required"
    )
    advice = "; give labels in evaluate, or recalibrate with more samples"
    gates.append(
        Gate(GateName.SQNR, passed, sqnr, LABEL_FREE_SQNR_DB, _say(sentence, passed, advice))
    )
    return gates


def _size(sizes: Sizes, contract: ModelContract) -> Gate:
    passed = sizes.ratio >= contract.min_size_ratio
    sentence = (
        f"the INT8 tensors with their scales are {sizes.ratio:.2f} times smaller than in FP32; "
        f"at least {contract.min_size_ratio:.2f} is required (whole file: {sizes.file_ratio:.2f})"
    )
    advice = "; layers with few weights per output channel spend most on scales: lower the limit"
    return Gate(
        GateName.SIZE, passed, sizes.ratio, contract.min_size_ratio, _say(sentence, passed, advice)
    )


def _kernels(kernels: KernelReport) -> Gate:
    passed = kernels.complete
    sentence = (
        f"{kernels.found} of {kernels.planned} planned INT8 kernels are in the generated code"
    )
    if kernels.in_code not in (kernels.planned, kernels.found + kernels.unattributed):
        sentence += f", which has {kernels.in_code} kernel calls"
    if kernels.missing:
        names = ", ".join(kernels.missing[:_SHOWN])
        more = len(kernels.missing) - _SHOWN
        sentence += f"; not in INT8: {names}" + (f" and {more} more" if more > 0 else "")
    if kernels.unattributed:
        sentence += f"; {kernels.unattributed} kernels belong to no planned layer"
    advice = "; this build of torch or this CPU runs them in float: see the supported versions"
    return Gate(
        GateName.KERNELS,
        passed,
        float(kernels.found),
        float(kernels.planned),
        _say(sentence, passed, advice),
    )


def _parity(evidence: Evidence) -> Gate:
    parity = evidence.parity_db
    # Sums in another order round single codes the other way, and deep networks carry that on: two
    # independent roundings of one model are 3 dB further from each other than from FP32.
    sqnr = evidence.simulated_sqnr_db
    required = PARITY_DB if sqnr is None else min(PARITY_DB, sqnr - _TWO_ROUNDINGS_DB)
    passed = evidence.identical or (parity is not None and parity >= required)
    shown = "could not be measured" if parity is None else f"is {parity:.1f} dB"
    if evidence.identical:
        shown = "is exact"
    sentence = (
        f"agreement of the compiled model with its q/dq graph {shown}; at least {required:.1f} dB "
        "are required"
    )
    advice = "; the compiler changed the result: report it with the versions in the manifest"
    return Gate(GateName.PARITY, passed, parity, required, _say(sentence, passed, advice))


def _coverage(coverage: HeldOutCoverage, contract: ModelContract) -> Gate:
    passed = coverage.lower >= contract.coverage_target
    drawn = f" (one of each group of {coverage.rows} rows)"
    sentence = (
        f"{coverage.covered} of {coverage.units} held-out requests"
        f"{'' if coverage.rows == coverage.units else drawn} stay inside every observed bound, "
        f"at least {100 * coverage.lower:.2f} % with 95 % confidence; "
        f"{100 * contract.coverage_target:.2f} % are required"
    )
    worst = f", most often passed at {coverage.worst_point}" if coverage.worst_point else ""
    advice = f"{worst}; select more uncovered samples, or hold out more requests"
    return Gate(
        GateName.COVERAGE,
        passed,
        coverage.lower,
        contract.coverage_target,
        _say(sentence, passed, advice),
    )


def _say(sentence: str, passed: bool, advice: str) -> str:
    return sentence if passed else sentence + advice
