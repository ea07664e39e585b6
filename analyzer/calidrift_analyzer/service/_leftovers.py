"""What a service that was killed could not tidy up behind a job."""

import shutil

from calidrift_analyzer.config import AnalyzerConfig
from calidrift_analyzer.jobs import job_folder
from calidrift_analyzer.store import Store

__all__ = ["remove_leftovers"]


def remove_leftovers(store: Store, config: AnalyzerConfig) -> None:
    """Remove the folders of jobs that have ended.

    A job's end is in the store before its folder is removed: a kill between the two would leave
    its candidates for ever. Folders of jobs that this store does not know are left alone.
    """
    for contract in config.models.values():
        folder = job_folder(contract, 0).parent
        if not folder.is_dir():
            continue
        for entry in folder.iterdir():
            known = entry.name.isascii() and entry.name.isdecimal() and len(entry.name) <= 15
            job = store.jobs.find(int(entry.name)) if known else None
            if job is not None and job.model == contract.name and job.state.finished:
                shutil.rmtree(entry, ignore_errors=True)
