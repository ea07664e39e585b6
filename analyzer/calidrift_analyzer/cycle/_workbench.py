"""Where candidates and their validation wait between two commands.

<registry>/<model>/candidates/<id>/            model.pt2, profile.json
<registry>/<model>/candidates/candidates.json  what recalibration wrote
<registry>/<model>/candidates/validation.json  what validation said about them
"""

import json
from pathlib import Path
from typing import Final

from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.errors import ConfigurationError, NoDataError
from calidrift_analyzer.records import (
    Candidate,
    ValidationReport,
    read_record,
    record_document,
)

__all__ = ["candidates_folder", "load_candidates", "load_report", "save_candidates", "save_report"]

_CANDIDATES: Final = "candidates.json"
_VALIDATION: Final = "validation.json"


def candidates_folder(contract: ModelContract) -> Path:
    """Folder of a model's candidates."""
    return contract.registry / contract.name / "candidates"


def save_candidates(contract: ModelContract, candidates: tuple[Candidate, ...]) -> None:
    """Note what recalibration wrote; an earlier validation no longer counts."""
    (candidates_folder(contract) / _VALIDATION).unlink(missing_ok=True)
    _save(
        candidates_folder(contract) / _CANDIDATES,
        {"candidates": [record_document(candidate) for candidate in candidates]},
    )


def load_candidates(contract: ModelContract) -> tuple[Candidate, ...]:
    """Read what recalibration wrote last.

    Raises:
        NoDataError: Nothing was recalibrated yet.
        ContractError: The list is damaged.
    """
    path = candidates_folder(contract) / _CANDIDATES
    document = _load(path, f"calidrift recalibrate {contract.name}")
    listed = document.get("candidates")
    return tuple(
        read_record(Candidate, one, source=str(path))
        for one in (listed if isinstance(listed, list) else [None])
    )


def save_report(contract: ModelContract, report: ValidationReport) -> Path:
    """Note what validation said."""
    path = candidates_folder(contract) / _VALIDATION
    _save(path, record_document(report))
    return path


def load_report(contract: ModelContract) -> ValidationReport:
    """Read what validation said last.

    Raises:
        NoDataError: Nothing was validated since the last recalibration.
        ContractError: The report is damaged.
    """
    path = candidates_folder(contract) / _VALIDATION
    document = _load(path, f"calidrift validate {contract.name}")
    return read_record(ValidationReport, document, source=str(path))


def _save(path: Path, document: dict[str, object]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(document, indent=2), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error.strerror}); check the key registry of the model"
        ) from error


def _load(path: Path, command: str) -> dict[str, object]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NoDataError(f"there is no {path.name} in {path.parent}; run `{command}`") from error
    except (OSError, ValueError) as error:
        raise NoDataError(f"{path} cannot be read ({error}); run `{command}` again") from error
    return document if isinstance(document, dict) else {}
