"""Records to JSON documents and back."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from calidrift_analyzer.errors import ContractError

__all__ = ["read_record", "record_document"]

_Record = TypeVar("_Record")
_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def record_document(record: object) -> dict[str, Any]:
    """Give a record as a JSON object: enums as words, paths as text, infinity as `null`."""
    document: dict[str, Any] = _adapter(record.__class__).dump_python(record, mode="json")
    return document


def read_record(kind: type[_Record], document: object, *, source: str) -> _Record:
    """Restore a record from `record_document`.

    Args:
        kind: The record's class.
        document: What was read.
        source: Where it was read from, for the message.

    Raises:
        ContractError: The document is not such a record.
    """
    try:
        record: _Record = _adapter(kind).validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ContractError(
            f"{source} is not a stored {kind.__name__} ({where}: {first['msg']}); "
            "it is damaged or of another version: make it again"
        ) from error
    return record


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
