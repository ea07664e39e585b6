"""The serving side of the registry: versions of a model on disk, read and verified.

Standard library only, so that any process can ask which version to serve.
"""

from calidrift_agent._registry._layout import (
    FORMAT,
    MANIFEST_FILE,
    MODEL_FILE,
    PARTIAL,
    PROFILE_FILE,
    REPORT_FILE,
    Pointer,
    VersionLayout,
    identity_of,
    number_of,
    read_pointer,
)
from calidrift_agent._registry._versions import (
    Version,
    VersionStatus,
    list_versions,
    open_version,
)

__all__ = [
    "FORMAT",
    "MANIFEST_FILE",
    "MODEL_FILE",
    "PARTIAL",
    "PROFILE_FILE",
    "REPORT_FILE",
    "Pointer",
    "Version",
    "VersionLayout",
    "VersionStatus",
    "identity_of",
    "list_versions",
    "number_of",
    "open_version",
    "read_pointer",
]
