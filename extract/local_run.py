"""`backend=local`: a plan is carried out in this process, beside any other that does the same."""

from __future__ import annotations

import time

from ..store.taken_units import TakenUnits
from ..store.writer import GroupWriter
from .commit import device_name
from .extraction import Extraction
from .plan import BundlePlan, Plan
from .sharing import Sharing
from .worker import Worker

LOOK_EVERY_S = 1.0


def work_locally(extraction: Extraction) -> None:
    """Write and commit every bundle of the plan.

    Units that other runs have begun are left to them. At the end they are waited for: so all features are
    there when any of the runs ends well, and what a run that died had begun is done here.

    Raises:
        StrataError: as `Worker.work` and `Extraction.commit`.
    """
    plan, progress = extraction.plan, extraction.progress
    with TakenUnits(plan.root, extraction.log.name) as taken:
        worker = Worker(
            plan,
            extraction.config.batch,
            extraction.tally,
            done=progress.advance,
            before_write=extraction.log.before_write,
            note=progress.note,
            sharing=Sharing(taken, progress.note),
        )
        left = [part for part in plan.bundles if not _done(extraction, worker, part)]
        if left:
            progress.note("waiting for the units that other runs are writing")
        while left:
            time.sleep(LOOK_EVERY_S)
            left = [part for part in left if not _done(extraction, worker, part)]


def _done(extraction: Extraction, worker: Worker, part: BundlePlan) -> bool:
    """Write what nobody else is writing, and commit the bundle if it is whole then; whether it is."""
    retry = extraction.retry_rows(part)
    worker.work(part, retry)
    whole = not _missing(extraction.plan, part)
    if whole:
        extraction.commit(part, device_name(extraction.plan.device), again=bool(retry))
    return whole


def _missing(plan: Plan, part: BundlePlan) -> bool:
    return any(GroupWriter(plan.root, spec).missing_units() for spec in part.groups)
