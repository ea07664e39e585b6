"""The service of the demo: an INT8 model that answers requests while the agent watches it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

from torch import Tensor, nn
from torch.fx import GraphModule

from calidrift_agent import (
    CalibrationProfile,
    CaptureOptions,
    WatchOptions,
    calibrate,
    open_version,
    request_context,
    watch,
)
from calidrift_analyzer.backend import (
    FixedRows,
    PreparedModel,
    compile_int8,
    load_graph,
)
from calidrift_analyzer.demo._contract import DigitsContract
from calidrift_analyzer.demo._data import Condition
from calidrift_analyzer.demo._result import DemoOptions
from calidrift_analyzer.demo._traffic import Traffic
from calidrift_analyzer.demo._workdir import MODEL, Workdir
from calidrift_analyzer.errors import ConfigurationError, RefusedError
from calidrift_analyzer.ranges import Estimator
from calidrift_analyzer.records import KernelReport

__all__ = ["Deployed", "Service", "deploy", "promoted", "stale"]

_WINDOW_SECONDS: Final = 86_400.0
"""Windows of the demo end where it flushes them: by number of requests, not by time."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Deployed:
    """A compiled INT8 model and what belongs to it.

    Attributes:
        graph: The q/dq graph.
        module: The compiled module, for requests of exactly `REQUEST_ROWS` rows.
        any_rows: The same module for batches of any size.
        profile: Its calibration profile.
        kernels: INT8 kernels in its code, against the plan.
    """

    graph: GraphModule
    module: nn.Module
    any_rows: nn.Module
    profile: CalibrationProfile
    kernels: KernelReport


def deploy(graph: GraphModule, profile: CalibrationProfile, inputs: Sequence[Tensor]) -> Deployed:
    """Compile a q/dq graph as a service does at its start, and count its INT8 kernels.

    Args:
        graph: The q/dq graph.
        profile: Its calibration profile.
        inputs: One request.

    Returns:
        What serves.

    Raises:
        ToolchainError: There is no C++ compiler.
        RefusedError: A planned INT8 kernel is missing: the model would run in float.
    """
    compiled = compile_int8(graph, inputs)
    kernels = compiled.kernels
    if not kernels.complete:
        raise RefusedError(
            f"{kernels.found} of {kernels.planned} planned INT8 kernels are in the generated code "
            f"(missing: {', '.join(kernels.missing) or 'none'}); a model that runs in float is not "
            "served"
        )
    return Deployed(graph, compiled.module, FixedRows(compiled.module, inputs), profile, kernels)


def stale(network: nn.Module, contract: DigitsContract) -> tuple[GraphModule, CalibrationProfile]:
    """Quantize the network as a team does that has only low-light pictures at that time.

    Args:
        network: The trained FP32 network.
        contract: Gives the calibration set.

    Returns:
        The q/dq graph with absmax ranges of the calibration set, and its calibration profile.
    """
    prepared = PreparedModel(network, contract.example_inputs())
    measured = calibrate(prepared.convert(), contract.calibration())
    sketches = {
        name: point.sketch for name, point in measured.points.items() if point.sketch is not None
    }
    graph = prepared.convert(prepared.estimate(sketches, Estimator.ABSMAX))
    return graph, calibrate(graph, contract.calibration())


def promoted(workdir: Workdir, inputs: Sequence[Tensor]) -> Deployed:
    """Deploy what the registry's pointer names, after every file of it was verified."""
    version = open_version(workdir.registry, MODEL)
    profile = CalibrationProfile.load(version.profile_path)
    return deploy(load_graph(version.model_path), profile, inputs)


@final
class Service:
    """A deployed model under `watch`; use it as made by `Service.running`.

    Args:
        deployed: What serves.
        traffic: Where requests come from.
        flush: Ends the window.
    """

    def __init__(self, deployed: Deployed, traffic: Traffic, flush: Callable[[], object]) -> None:
        self._module = deployed.module
        self._traffic = traffic
        self._flush = flush

    @classmethod
    @contextmanager
    def running(
        cls, deployed: Deployed, workdir: Workdir, traffic: Traffic, options: DemoOptions
    ) -> Iterator["Service"]:
        """Start a service and stop it again.

        The agent's budget is switched off: the demo compresses a day of traffic into seconds, so
        it observes more than the 1 % of forward time that a service would grant, says what that
        cost, and gives the same result on a busy machine.

        Args:
            deployed: What serves.
            workdir: The agent writes into its state folder.
            traffic: Where requests come from.
            options: Sampling ratio and seed.

        Yields:
            The service.

        Raises:
            ConfigurationError: The agent is switched off on this machine.
        """
        with watch(
            deployed.module,
            name=MODEL,
            profile=deployed.profile,
            state_dir=workdir.state,
            sample_rate=options.sample_rate,
            capture=CaptureOptions(seed=options.seed),
            options=WatchOptions(budget=None, window_seconds=_WINDOW_SECONDS, seed=options.seed),
        ) as watching:
            report = watching.report()
            if not report.active:
                raise ConfigurationError(
                    f"the demo shows what the agent sees, but here it is {'; '.join(report.notes)}"
                )
            yield cls(deployed, traffic, watching.flush)

    def serve(self, count: int, conditions: Sequence[Condition]) -> None:
        """Answer requests, then close the agent's window.

        Args:
            count: How many requests.
            conditions: Where the traffic comes from.
        """
        for condition, request in self._traffic.requests(count, conditions):
            with request_context(segment=condition):
                self._module(request)
        self._flush()
