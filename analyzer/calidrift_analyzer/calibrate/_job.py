"""The child's side; the only place of this stage where the user's code runs."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from calidrift_agent import CalibrateOptions, calibrate
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.contract import Progress
from calidrift_analyzer.contract._user_code import UserCode
from calidrift_analyzer.records import read_record

__all__ = ["run"]


def run(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Measure and save a profile.

    Args:
        request: `contract`, `target` and `rank`, as `calibrate_model` writes them.
        progress: Called for every batch.

    Returns:
        The digest of the profile.
    """
    contract = read_record(ModelContract, request["contract"], source="the request")
    code = UserCode(contract)
    options = CalibrateOptions(
        rank=int(request["rank"]), preprocessing=contract.preprocessing or ""
    )
    profile = calibrate(code.model(), _counted(code.calibration(), progress), options=options)
    target = Path(request["target"])
    target.parent.mkdir(parents=True, exist_ok=True)
    profile.save(target)
    return {"digest": profile.digest}


def _counted(batches: Iterable[Any], progress: Progress) -> Iterator[Any]:
    for number, batch in enumerate(batches, start=1):
        yield batch
        progress("calibrating", number, 0)
