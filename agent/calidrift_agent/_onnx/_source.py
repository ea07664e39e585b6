"""Reading an ONNX model: from a file, or as the one that a session was made from."""

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, final

from calidrift_agent._onnx._extra import onnx_package
from calidrift_agent.errors import AttachError


@final
@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A model and where its outsourced weights lie.

    Attributes:
        model: The `onnx.ModelProto`, without outsourced weights.
        folder: Folder that the paths of outsourced weights start from; None where the model came
            as bytes.
        name: What to call it in a message.
    """

    model: Any
    folder: Path | None
    name: str


def read_file(path: str | os.PathLike[str]) -> Source:
    """Read an ONNX file; its outsourced weights stay where they are.

    Raises:
        ConfigurationError: The extra is not installed.
        AttachError: The file cannot be read, or is no ONNX model.
    """
    file = Path(path)
    try:
        return _parse(file.read_bytes(), file.resolve().parent, str(path))
    except OSError as error:
        raise AttachError(
            f"{path} cannot be read ({error.strerror or error}); give the path of an ONNX model"
        ) from error


def read_session(session: Any) -> Source:
    """Read the model that a session was made from.

    Raises:
        ConfigurationError: The extra is not installed.
        AttachError: The session does not hold its model, or the model is no ONNX model.
    """
    content = getattr(session, "_model_bytes", None)
    if content:
        return _parse(content, None, "the bytes that the session was made from")
    path = getattr(session, "_model_path", None)
    if path:
        return read_file(path)
    raise AttachError(
        "the session does not say which model it was made from; make it from a path or from bytes "
        "of an ONNX model"
    )


def _parse(content: bytes, folder: Path | None, name: str) -> Source:
    onnx = onnx_package()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf has a class of its own, another one in each version
        raise AttachError(
            f"{name} is no ONNX model ({error}); a model in ORT format or an encrypted one cannot "
            "be observed: give the .onnx file that it was made from"
        ) from error
    if not model.graph.output:
        raise AttachError(
            f"{name} is no ONNX model: it holds no graph; give an .onnx file, as an exporter wrote "
            "it"
        )
    if model.functions:
        model = import_module("onnx.inliner").inline_local_functions(model)
    return Source(model, folder, name)
