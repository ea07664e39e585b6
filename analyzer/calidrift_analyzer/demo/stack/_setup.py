"""Everything that stands before the traffic shifts: a trained network and five programs."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

import torch
from safetensors.torch import save_file

from calidrift_analyzer.backend import planned_layers, save_graph
from calidrift_analyzer.contract import Progress
from calidrift_analyzer.demo._contract import DigitsContract
from calidrift_analyzer.demo._run import Narrator
from calidrift_analyzer.demo._service import stale
from calidrift_analyzer.demo._training import TrainOptions, train
from calidrift_analyzer.demo._workdir import MODEL
from calidrift_analyzer.demo.stack._files import StackFiles, shortened_rules
from calidrift_analyzer.demo.stack._programs import ALERTMANAGER, PROMETHEUS, Programs
from calidrift_analyzer.demo.stack._questions import Questions
from calidrift_analyzer.demo.stack._result import Shortened, StackOptions
from calidrift_analyzer.promote import adopt

__all__ = ["Setup", "Standing"]

_ANALYZER: Final = "analyzer"
_SERVICE: Final = "service"
_COMMAND: Final = "from calidrift_agent._command_line import main; main()"
_LISTENING: Final = r'msg="Listening on" (?:component=\S+ )?address=(\S+)'
_SERVING: Final = r"serving .* at (http://\S+)"
_START_SECONDS: Final = 60.0
_COMPILE_SECONDS: Final = 120.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What runs.

    Attributes:
        questions: What can be asked of whom.
        addresses: Where each program listens.
        rules: What became of the times of the alerts.
        seconds: How long each step took.
    """

    questions: Questions
    addresses: Mapping[str, str]
    rules: tuple[Shortened, ...]
    seconds: Mapping[str, float]


@final
class Setup:
    """Brings everything up.

    Args:
        options: How the run goes.
        files: Its files; those of the service are written.
        programs: Where programs run.
        narrator: Told of every step.
    """

    def __init__(
        self, options: StackOptions, files: StackFiles, programs: Programs, narrator: Narrator
    ) -> None:
        self._options = options
        self._files = files
        self._programs = programs
        self._narrator = narrator
        self._seconds: dict[str, float] = {}

    def stand(self, paths: Mapping[str, str], rules: Mapping[str, str]) -> Standing:
        """Start everything, and wait until all of it answers.

        Args:
            paths: Where the programs of the system are.
            rules: Files of rules by name, as they are committed.
        """
        files, programs = self._files, self._programs
        config = files.workdir.config
        programs.start(
            _ANALYZER, sys.executable, "-c", _COMMAND, "serve", "--config", config
        )  # it needs seconds to start, and nothing of what follows
        with self._step("train the network, quantize it with low-light pictures") as progress:
            self._first_version(progress)
        with self._step("start the service: compile INT8, follow the registry"):
            service = self._start_service()
        with self._step("start Prometheus and Alertmanager, wait for the analyzer"):
            analyzer = programs.address(_ANALYZER, _SERVING, _START_SECONDS)
            alertmanager = self._start_alertmanager(paths[ALERTMANAGER], analyzer)
            times = {
                name: shortened_rules(text, self._options.speed, self._options.least_hold_seconds)
                for name, text in rules.items()
            }
            written = files.write_prometheus(
                {name: text for name, (text, _) in times.items()},
                service=service,
                analyzer=analyzer,
                alertmanager=alertmanager,
            )
            prometheus = self._start_prometheus(paths[PROMETHEUS], str(written))
            questions = Questions(
                prometheus=prometheus,
                alertmanager=alertmanager,
                analyzer=analyzer,
                token=files.secrets.read,
                decides=files.secrets.decide,
            )
            self._programs.wait(
                "Prometheus has scraped the service and the analyzer",
                lambda: questions.value("sum(up) == 2"),
                _START_SECONDS,
            )
        return Standing(
            questions=questions,
            addresses={
                "service": service,
                "analyzer": analyzer,
                "prometheus": prometheus,
                "alertmanager": alertmanager,
            },
            rules=tuple(one for _, holds in times.values() for one in holds),
            seconds=self._seconds,
        )

    @contextmanager
    def _step(self, what: str) -> Iterator[Progress]:
        began = time.monotonic()
        with self._narrator.step(what) as progress:
            yield progress
        self._seconds[what] = round(time.monotonic() - began, 3)

    def _first_version(self, progress: Progress) -> None:
        """Train and quantize as a team does that has only low-light pictures at that time."""
        options, files = self._options, self._files
        contract = DigitsContract(options.seed)
        network = train(
            TrainOptions(seed=options.seed, epochs=options.epochs),
            lambda done, total: progress("training", done, total),
        )
        save_file(network.state_dict(), files.workdir.weights)
        with torch.no_grad():
            graph, profile = stale(network, contract)
        save_graph(graph, contract.example_inputs(), files.baseline / "model.pt2")
        profile.save(files.baseline / "profile.json")
        # The registry knows what served first: a rollback can go to it.
        kernels = Counter(one.name for one in planned_layers(graph))
        adopt(files.baseline, kernels, files.workdir.registry, MODEL)

    def _start_service(self) -> str:
        self._programs.start(
            _SERVICE,
            sys.executable,
            "-m",
            "calidrift_analyzer.demo.stack._serving",
            self._files.workdir.root,
            f"--seed={self._options.seed}",
            f"--sample-rate={self._options.sample_rate:g}",
        )
        return self._programs.address(_SERVICE, _SERVING, _COMPILE_SECONDS)

    def _start_alertmanager(self, path: str, analyzer: str) -> str:
        files = self._files
        self._programs.start(
            ALERTMANAGER,
            path,
            f"--config.file={files.write_alertmanager(analyzer)}",
            f"--storage.path={files.alertmanager}",
            "--web.listen-address=127.0.0.1:0",
            "--cluster.listen-address=",  # else it looks for others, on every network
        )
        return self._programs.address(ALERTMANAGER, _LISTENING, _START_SECONDS)

    def _start_prometheus(self, path: str, config: str) -> str:
        self._programs.start(
            PROMETHEUS,
            path,
            f"--config.file={config}",
            f"--storage.tsdb.path={self._files.prometheus}",
            "--web.listen-address=127.0.0.1:0",
        )
        return self._programs.address(PROMETHEUS, _LISTENING, _START_SECONDS)
