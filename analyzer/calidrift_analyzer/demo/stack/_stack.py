"""The demo with the real servers: five programs on this machine, and one turn of the loop."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from calidrift_analyzer.backend import require_compiler
from calidrift_analyzer.demo._run import Narrator
from calidrift_analyzer.demo._traffic import Traffic
from calidrift_analyzer.demo._workdir import Workdir
from calidrift_analyzer.demo.stack._files import Secrets, StackFiles
from calidrift_analyzer.demo.stack._load import Load, Served
from calidrift_analyzer.demo.stack._loop import CALM, Loop
from calidrift_analyzer.demo.stack._programs import ALERTMANAGER, PROMETHEUS, Programs, program
from calidrift_analyzer.demo.stack._result import StackOptions, StackResult
from calidrift_analyzer.demo.stack._setup import Setup, Standing
from calidrift_analyzer.records import record_document

__all__ = ["run_stack"]


def run_stack(
    options: StackOptions,
    rules: Mapping[str, str],
    narrator: Narrator,
    stay: Callable[[StackResult], None] | None = None,
) -> StackResult:
    """Run the whole loop with Prometheus and Alertmanager, on this machine.

    A network is trained, quantized with low-light pictures, and served under `watch` by a process
    that follows its registry. Prometheus scrapes it and the analyzer; Alertmanager hands alerts to
    the analyzer's webhook. Then the traffic shifts, and everything else happens by itself: each
    step is waited for where it can be seen from outside. Last, somebody rolls back to what served
    before, and then forward again.

    Args:
        options: Folder, seed, and how much the times of rules and routes are shortened.
        rules: Files of rules for Prometheus by name, as they are committed.
        narrator: Told of every step.
        stay: Called with the result while everything still runs.

    Returns:
        What was measured; the same document is in the folder as `result.json`.

    Raises:
        ConfigurationError: The folder cannot be used.
        ToolchainError: Prometheus, Alertmanager or a compiler is missing.
        ChildError: One of the programs ended.
        RefusedError: A step did not come in time, or a gate refused every candidate.

    Cost: 2 to 4 minutes on 2 cores. Every program is ended, whatever happens.
    """
    began = time.monotonic()
    paths = {name: program(name) for name in (PROMETHEUS, ALERTMANAGER)}
    require_compiler()
    workdir = Workdir.prepare(options.workdir, options.seed)
    files = StackFiles(workdir, Secrets.fresh(), options.speed)
    files.write_service()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with Programs(files.logs, options.limit_seconds) as programs:
            standing = Setup(options, files, programs, narrator).stand(paths, rules)
            address, traffic = standing.addresses["service"], Traffic(options.seed)
            with Load(address, traffic, options.rate, CALM) as load:
                loop = Loop(standing.questions, load, programs, narrator)
                loop.go_round(options.calm_units)
                result = _result(options, files, standing, loop, load.served)
                result = replace(result, wall_seconds=round(time.monotonic() - began, 3))
                workdir.write_result(record_document(result))
                if stay is not None:
                    stay(result)
    finally:
        torch.set_num_threads(threads)
    return result


def _result(
    options: StackOptions, files: StackFiles, standing: Standing, loop: Loop, served: Served
) -> StackResult:
    return StackResult(
        seed=options.seed,
        speed=options.speed,
        least_hold_seconds=options.least_hold_seconds,
        rules=standing.rules,
        setup_seconds={**standing.seconds, "judge low-light requests": loop.calm_seconds},
        steps=loop.steps,
        alerts=standing.questions.fired(),
        other_alerts=standing.questions.fired(repairs=False),
        job=loop.job,
        first=loop.first,
        version=loop.version,
        candidate=loop.candidate,
        coverage_before=loop.coverage_before,
        coverage_after=loop.coverage_after,
        requests=served.requests,
        lost=served.lost,
        loss=served.loss,
        answers=served.answers,
        slowest_seconds=round(served.slowest_seconds, 3),
        addresses=standing.addresses,
        wall_seconds=0.0,
        workdir=files.workdir.root,
        config=files.workdir.config,
    )
