"""`calidrift serve`, which can be made to wait at a place in the life of a job, to be killed there.

    python serve_harness.py serve --config FILE

The file `hold` beside the configuration names the place; the file `at-work` appears there when the
job has come to it. What runs is the real service. User code waits in the real child processes of
recalibration and validation; where nothing waits there, both answer in an instant.
"""

import json
import os
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from calidrift_agent._command_line import main
from calidrift_analyzer.jobs import _promotion, _stages
from calidrift_analyzer.jobs._worker import Worker

JOBS = Path(__file__).parents[1] / "jobs" / "harness.py"


def hold(root, place):
    """Wait to be killed, where this is the place to wait at."""
    if (root / "hold").read_text() == place:
        told = root / "at-work.partial"
        told.write_text(json.dumps({"place": place, "pid": os.getpid()}))
        told.rename(root / "at-work")
        time.sleep(600)


class Holds:
    """The steps of a job, each with a place before it."""

    def __init__(self, root):
        spec = spec_from_file_location("jobs_harness", JOBS)
        self.root, self.made = root, module_from_spec(spec)
        spec.loader.exec_module(self.made)

    def wanted(self, place):
        return (self.root / "hold").read_text() == place

    def before(self, place, step):
        def waits(*args, **options):
            hold(self.root, place)
            return step(*args, **options)

        return waits

    def recalibrate(self, contract, directory, **options):
        if self.wanted("recalibrating"):
            return RECALIBRATE(contract, directory, **options)
        return (self.made.make_candidate(directory),)

    def validate(self, contract, candidates, **options):
        if self.wanted("validating"):
            return VALIDATE(contract, candidates, **options)
        return self.made.make_report(candidates[0])

    def promote(self, candidate, report, registry, model):
        def before(step):
            hold(self.root, step)

        return PROMOTE(candidate, report, registry, model, on_step=before)

    def promote_once(self, *told):
        version = PROMOTE_ONCE(*told)
        hold(self.root, "not yet recorded")
        return version

    def install(self):
        Worker._work = self.before("queued", Worker._work)
        Worker._ended = self.before("recorded", Worker._ended)
        _stages._select = self.before("selecting", _stages._select)
        _stages.recalibrate, _stages.validate = self.recalibrate, self.validate
        _promotion.promote, _stages.promote_once = self.promote, self.promote_once


RECALIBRATE, VALIDATE = _stages.recalibrate, _stages.validate
PROMOTE, PROMOTE_ONCE = _promotion.promote, _stages.promote_once

if __name__ == "__main__":
    Holds(Path(sys.argv[sys.argv.index("--config") + 1]).parent).install()
    main()
