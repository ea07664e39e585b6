"""The serving side of the registry: versions of a model on disk, read and verified.

Standard library only, so that any process can ask which version to serve; `fsspec` comes in where
the registry is a URL, and is imported then.
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
from calidrift_agent._registry._mirror import Mirror
from calidrift_agent._registry._store import RegistryStore, check_url, is_url
from calidrift_agent._registry._versions import (
    Version,
    VersionStatus,
    list_versions,
    listed_files,
    open_named,
    open_version,
)

__all__ = [
    "FORMAT",
    "MANIFEST_FILE",
    "MODEL_FILE",
    "PARTIAL",
    "PROFILE_FILE",
    "REPORT_FILE",
    "Mirror",
    "Pointer",
    "RegistryStore",
    "Version",
    "VersionLayout",
    "VersionStatus",
    "check_url",
    "identity_of",
    "is_url",
    "list_versions",
    "listed_files",
    "number_of",
    "open_named",
    "open_version",
    "read_pointer",
]
