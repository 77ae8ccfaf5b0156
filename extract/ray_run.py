"""`backend=ray`: the units of a plan, pulled by idle workers of a cluster or of a Ray of our own.

The driver plans, writes the records first and commits behind the work, as a run in one process does.
No tensor goes through Ray: workers write shards themselves, and return counters and failures.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from os import sched_getaffinity
from pathlib import Path
from typing import Any

import torch

from ..configs.schema import ExtractConfig
from ..errors import ConfigError
from ..store.atomic import write_atomic
from ..store.writer import GroupWriter
from .commit import device_name
from .encoders.exported import is_exported
from .extraction import Extraction
from .owed import owed_units
from .ray_crew import Crew, Shape
from .ray_jobs import Job, Ledger, bundle_jobs, cpus_each
from .ray_session import cluster_address, session
from .ray_worker import Report, Setup, index_digest, nonce_path


def forward_device(config: ExtractConfig) -> str:
    """Where the workers' forward passes run: `cuda:0` (each worker sees its own GPU alone) or `cpu`.

    Raises:
        ConfigError: one certain GPU is asked for.
        ClusterError: the cluster is out of reach.
    """
    if config.device in ("cpu", "cuda"):
        return "cuda:0" if config.device == "cuda" else "cpu"
    if config.device != "auto":
        raise ConfigError(
            f"device={config.device} cannot be chosen with backend=ray.",
            where="device",
            why="Ray gives each worker a GPU of its own",
            fix="write device=cuda or device=cpu, or leave it out; workers=N limits how many",
        )
    if cluster_address(config.address) is None:
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    with session(config.address) as ray:
        return "cuda:0" if ray.cluster_resources().get("GPU", 0) else "cpu"


def work_on_ray(extraction: Extraction) -> None:
    """Carry a plan out whose records are written.

    Raises:
        ClusterError: Ray cannot be reached, workers do not start, or nodes do not agree.
        DiskFullError: a worker found the disk full.
    """
    foreman = Commits(extraction)
    if foreman.open:
        config = extraction.config
        with (
            session(config.address, _own_cpus(config.workers)) as ray,
            _nonce(extraction) as nonce,
        ):
            shape = crew_shape(ray.nodes(), config.workers, foreman.open, gpu=extraction.plan.device != "cpu")
            Crew(ray, shape, _setup(extraction, shape, nonce), foreman).run()
    foreman.finish()


def crew_shape(nodes: Iterable[dict[str, Any]], workers: int | None, jobs: int, *, gpu: bool) -> Shape:
    """How many workers, and what each one reserves.

    Args:
        nodes: as `ray.nodes()` gives them.
        workers: as asked; None = one per GPU, or one per two CPUs of a node.
        jobs: no more workers than these.
        gpu: whether each one has a GPU.
    """
    there = [node["Resources"] for node in nodes if node["Alive"]]
    if gpu:
        known = sum(int(node.get("GPU", 0)) for node in there)
        return Shape(workers=max(1, min(workers or known, jobs)), cpus=1, gpus=1)
    cpus = [int(node.get("CPU", 0)) for node in there]
    wanted = max(1, min(workers or sum(n // 2 for n in cpus), jobs))
    return Shape(workers=wanted, cpus=cpus_each(cpus, wanted), gpus=0)


class Commits:
    """The foreman of a crew: it counts what is reported, and commits each bundle that is whole."""

    def __init__(self, extraction: Extraction) -> None:
        self._extraction, self._device = extraction, extraction.plan.device
        self._parts = {part.bundle.id: part for part in extraction.plan.bundles}
        self._retries = {name: extraction.retry_rows(part) for name, part in self._parts.items()}
        jobs = {name: self._jobs(name) for name in self._parts}
        self._ledger = Ledger(job for some in jobs.values() for job in some)
        self._whole = [name for name, some in jobs.items() if not some]
        self._devices: set[str] = set()
        self._under_way: dict[str, int] = {}

    @property
    def open(self) -> int:
        return self._ledger.open

    def take(self, beside: Iterable[Job]) -> Job | None:
        job = self._ledger.take(beside)
        if job is not None and job.layers:
            self._under_way[job.name] = 0
        return job

    def started(self, device_name: str) -> None:
        self._devices.add(device_name)

    def counted(self, views: dict[str, int]) -> None:
        for name in self._under_way.keys() & views.keys():
            self._count(name, views[name])

    def done(self, job: Job, report: Report) -> None:
        tally, log = self._extraction.tally, self._extraction.log
        for stage in fields(tally):
            if stage.name not in ("views", "failures"):
                setattr(tally, stage.name, getattr(tally, stage.name) + getattr(report.tally, stage.name))
        tally.failures.update(report.tally.failures)
        self._count(job.name, report.tally.views)
        self._under_way.pop(job.name, None)
        log.before_write()
        for note in report.notes:
            self.note(note)
        if self._ledger.done(job):
            self._commit(job.bundle)

    def failed(self, job: Job, why: str) -> None:
        self._count(job.name, 0)
        self._under_way.pop(job.name, None)
        if self._ledger.failed(job, why):
            self.note(f"{job.name} are given up: {why}")
            for row in job.rows:
                self._extraction.tally.failures[job.bundle, row, None] = f"its unit was given up: {why}"
            self._extraction.log.before_write()

    def note(self, text: str) -> None:
        self._extraction.progress.note(text)

    def finish(self) -> None:
        """Commit the bundles that no worker had to do anything for."""
        for name in self._whole:
            self._commit(name)

    def _commit(self, bundle: str) -> None:
        # Without a worker everything was computed in an earlier run, on what this machine may not have.
        there = self._device == "cpu" or torch.cuda.is_available()
        own = device_name(self._device) if there else self._device.partition(":")[0]
        device = " + ".join(sorted(self._devices)) or own
        self._extraction.commit(self._parts[bundle], device, bool(self._retries[bundle]))

    def _count(self, name: str, views: int) -> None:
        """Views of a job with layers so far; those of a job that failed are taken back."""
        if name in self._under_way:
            more, self._under_way[name] = views - self._under_way[name], views
            self._extraction.tally.views += more
            self._extraction.progress.advance(more)

    def _jobs(self, bundle: str) -> list[Job]:
        part, retry = self._parts[bundle], self._retries[bundle]
        owed = {
            name: owed_units(GroupWriter(self._extraction.plan.root, spec), retry)
            for name, spec in {**part.layers, **part.others}.items()
        }
        return bundle_jobs(part, owed, retry)


@contextmanager
def _nonce(extraction: Extraction) -> Iterator[str]:
    """A secret of this run in the store: a worker that cannot read it sees another folder."""
    path, nonce = nonce_path(extraction.plan.root, extraction.log.name), secrets.token_hex(16)
    write_atomic(path, nonce.encode())
    try:
        yield nonce
    finally:
        path.unlink(missing_ok=True)


def _setup(extraction: Extraction, shape: Shape, nonce: str) -> Setup:
    plan, config = extraction.plan, extraction.config
    weights = Path(config.weights)
    words = {
        "store": str(plan.root.absolute()),
        "shards": str(Path(config.shards).absolute()),
        "weights": str(weights.absolute()) if weights.is_file() else config.weights,
        "encoder": str(Path(config.encoder).absolute()) if is_exported(config.encoder) else config.encoder,
    }
    return Setup(
        config=replace(config, **words),
        run=extraction.log.name,
        key=plan.key,
        storages=plan.storages,
        device=plan.device,
        threads=shape.cpus,
        nonce=nonce,
        index=index_digest(config.shards),
    )


def _own_cpus(workers: int | None) -> int:
    """CPUs that a Ray of our own offers: those we may use, and one for every worker that is asked for."""
    return max(len(sched_getaffinity(0)), workers or 1)
