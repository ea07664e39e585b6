"""The parent's part of recalibration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.contract import Progress, run_in_child
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.ranges import Estimator
from calidrift_analyzer.recalibrate._kept import kept
from calidrift_analyzer.records import Candidate, Production, read_record, record_document

__all__ = ["recalibrate"]

_JOB: Final = "calidrift_analyzer.recalibrate._job:run"


def recalibrate(
    contract: ModelContract,
    directory: Path,
    *,
    production: Production | None = None,
    samples: Sequence[Path] | None = (),
    estimators: Sequence[Estimator] = tuple(Estimator),
    progress: Progress | None = None,
) -> tuple[Candidate, ...]:
    """Make candidates: the FP32 model quantized anew, with ranges from each source and estimator.

    User code and torchao run in a child process; nothing of either is imported here. Nothing that
    serves is touched.

    Args:
        contract: The model contract.
        directory: Folder for the candidates, one folder each; those of the same name are replaced.
        production: Production sketches of the range instrument: candidates from them need no data.
        samples: Capture files to add to the calibration set; empty for the calibration set alone,
            `None` for no candidate from samples at all. They are copied aside first, because the
            agent goes on replacing them; files that are gone are left out.
        estimators: How ranges are estimated.
        progress: Told of every step.

    Returns:
        The candidates, those from samples first, in the order of `estimators`.

    Raises:
        ConfigurationError: There is nothing to make.
        ContractError: User code is missing or misbehaves, or the model cannot be quantized.
        NoDataError: A point has no production values.
        ChildError: The child died.

    Cost: 4 s of imports, then one pass over the data and about 0.5 s per candidate of a small CNN.
    """
    if not estimators or (production is None and samples is None):
        raise ConfigurationError(
            "there is nothing to recalibrate from: give production sketches, samples or both, and "
            f"at least one estimator of {', '.join(Estimator)}"
        )
    with kept(samples or ()) as copies:
        answer = run_in_child(
            _JOB,
            {
                "contract": record_document(contract),
                "directory": str(directory.resolve()),
                "estimators": [str(one) for one in estimators],
                "calibration": samples is not None,
                "samples": [str(sample) for sample in copies.files],
                "production": None
                if production is None
                else {
                    "units": production.units,
                    "sketches": {
                        name: one.to_mapping() for name, one in production.sketches.items()
                    },
                },
            },
            progress=progress,
            scratch=[copies.folder],
        )
    return tuple(
        read_record(Candidate, one, source="the child's answer") for one in answer["candidates"]
    )
