"""The folder of a demo run: what a service and its analyzer would have on one machine."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from calidrift_analyzer.config import CONFIG_NAME
from calidrift_analyzer.errors import ConfigurationError

__all__ = ["MODEL", "REFERENCE_UNITS", "Workdir"]

MODEL: Final = "digits"
"""Name of the demo's model."""

REFERENCE_UNITS: Final = 320
"""Random units of the promoted version's reference: fewer than the default of a service, because a
demo has little traffic."""

_MARKER: Final = ".calidrift-demo"
_FOLDERS: Final = ("state", "registry", "baseline", "alertmanager", "prometheus", "logs")
"""What is in the folder of one demo or the other."""
_CONTRACT: Final = "digits_contract"

_CONTRACT_TEXT: Final = '''"""What Calidrift may run for `{model}`; written by `calidrift demo`."""

from calidrift_analyzer.demo import DigitsContract

_digits = DigitsContract(seed={seed})

factory = _digits.factory
example_inputs = _digits.example_inputs
calibration = _digits.calibration
evaluate = _digits.evaluate
'''

_CONFIG_TEXT: Final = """# Written by `calidrift demo`. Every command works on it, for example:
#   calidrift status --config {name}

[analyzer]
database = "calidrift.duckdb"
state_dirs = ["state"]

[models.{model}]
factory = "{contract}:factory"
example_inputs = "{contract}:example_inputs"
calibration = "{contract}:calibration"
evaluate = "{contract}:evaluate"
weights = "weights.safetensors"
registry = "registry"
preprocessing = "brightness = 1 - ink / 16"
reference_units = {reference_units}
seed = {seed}
"""


@final
@dataclass(frozen=True, slots=True)
class Workdir:
    """Paths of one demo run.

    Attributes:
        root: The folder.
    """

    root: Path

    @classmethod
    def prepare(cls, root: Path, seed: int) -> "Workdir":
        """Make the folder, or clear the one of an earlier demo, and write the contract into it.

        Args:
            root: The folder; it may exist if it is empty or the folder of an earlier demo, whose
                files are replaced.
            seed: The demo's seed.

        Returns:
            The folder, with `calidrift.toml` and the module it names.

        Raises:
            ConfigurationError: The folder has other files in it, or cannot be written.
        """
        self = cls(root.absolute())
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            present = next(self.root.iterdir(), None)
            if present is not None and not (self.root / _MARKER).is_file():
                raise ConfigurationError(
                    f"the folder {self.root} has files in it that are not of an earlier demo "
                    f"({present.name}); give an empty or a new folder: --workdir DIR"
                )
            self._clear()
            (self.root / _MARKER).write_text("", encoding="utf-8")
            names = {
                "model": MODEL,
                "contract": _CONTRACT,
                "reference_units": REFERENCE_UNITS,
                "seed": seed,
                "name": CONFIG_NAME,
            }
            self.config.write_text(_CONFIG_TEXT.format(**names), encoding="utf-8")
            contract = self.root / f"{_CONTRACT}.py"
            contract.write_text(_CONTRACT_TEXT.format(**names), encoding="utf-8")
            self.state.mkdir(mode=0o700)
        except OSError as error:
            raise ConfigurationError(
                f"the folder {self.root} cannot be used ({error.strerror}); give one that can be "
                "written: --workdir DIR"
            ) from error
        return self

    @property
    def config(self) -> Path:
        """`calidrift.toml`."""
        return self.root / CONFIG_NAME

    @property
    def weights(self) -> Path:
        """FP32 weights."""
        return self.root / "weights.safetensors"

    @property
    def state(self) -> Path:
        """Where the agent writes."""
        return self.root / "state"

    @property
    def registry(self) -> Path:
        """Versions and candidates."""
        return self.root / "registry"

    @property
    def plot(self) -> Path:
        """The plot, without its suffix."""
        return self.root / "activation-maxima"

    @property
    def result(self) -> Path:
        """The document of the run."""
        return self.root / "result.json"

    def write_result(self, document: object) -> None:
        """Keep the document of the run beside its files."""
        text = json.dumps(document, indent=2, ensure_ascii=False)
        self.result.write_text(text + "\n", encoding="utf-8")

    def _clear(self) -> None:
        """Remove what an earlier demo wrote, and nothing else."""
        for folder in (*_FOLDERS, "__pycache__"):
            if (self.root / folder).is_dir():
                shutil.rmtree(self.root / folder)
        for pattern in (
            "calidrift.duckdb*",
            "weights.safetensors",
            "activation-maxima.*",
            "result.json",
            "tokens.toml",
        ):
            for path in self.root.glob(pattern):
                path.unlink()
