"""One worker of a run on Ray: it opens shards, store and encoder itself, and returns counters alone.

Ray makes an actor of `RemoteWorker`. Nothing in this file imports Ray.
"""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue

import torch

from ..configs.schema import ExtractConfig
from ..errors import ClusterError
from ..store.atomic import read_json
from ..store.catalog import Catalog
from ..store.key import FeatureKey
from ..store.schema import Bundle
from .bundling import Versions
from .commit import device_name
from .encoders.base import Encoder
from .encoders.registry import create
from .forward import Sets
from .groups import Groups
from .packed_folder import INDEX
from .plan import BundlePlan, Plan, bundle_plan
from .ray_jobs import Job
from .run_log import WorkerLog
from .shards import ShardIndex
from .stage import identity
from .tally import Tally
from .worker import Worker

# While one job ends, with its last shards on their way to the disk, another keeps the device busy.
LANES = 2
SHARED = "give every node the same shared file system at the same path, or use backend=local"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a worker is told when it starts.

    Attributes:
        config: the words, with absolute paths.
        run: name of the run.
        key, storages: of the features.
        device: of the forward passes.
        threads: of torch.
        nonce: what `runs/<run>.nonce` of the store holds.
        index: sha256 of the shards' index.
        patience_s: how long a new file may take to be seen on a network file system.
    """

    config: ExtractConfig
    run: str
    key: FeatureKey
    storages: dict[str, str]
    device: str
    threads: int
    nonce: str
    index: str
    patience_s: float = 10.0

    @property
    def root(self) -> Path:
        return Path(self.config.store)

    @property
    def nonce_path(self) -> Path:
        return nonce_path(self.root, self.run)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of a job."""

    tally: Tally
    notes: tuple[str, ...]


class RemoteWorker:
    """Does jobs, `LANES` at a time. Ray calls the methods on threads of their own."""

    def __init__(self) -> None:
        self._running: dict[str, Tally] = {}
        self._lanes: SimpleQueue[Lane] = SimpleQueue()

    def identify(self) -> dict[str, str]:
        """Node, version and code: compared before anything else is asked."""
        return {"node": socket.gethostname(), **identity()}

    def open(self, setup: Setup) -> str:
        """Check that this node sees what the driver sees, and load the encoder; returns the device's name.

        Raises:
            ClusterError: store, shards or weights are not the driver's.
            StrataError: the encoder cannot be made here.
        """
        _check_store(setup)
        _check_index(setup)
        torch.set_num_threads(setup.threads)
        plan = _plan(setup)
        self._part = _parts(plan, setup.config)
        self._log = WorkerLog(setup.root, setup.run, setup.key.folder)
        turn = threading.RLock()
        for _ in range(LANES):
            self._lanes.put(Lane(plan, setup.config.batch, turn, self._log))
        return device_name(setup.device)

    def work(self, job: Job) -> Report:
        """Write the units of a job.

        Raises:
            StrataError: as `Worker.work`.
        """
        lane = self._lanes.get()
        self._running[job.name] = lane.begin()
        try:
            lane.work(self._part(job.bundle), job.retry, job.units)
            return Report(tally=lane.tally, notes=tuple(lane.notes))
        finally:
            del self._running[job.name]
            self._lanes.put(lane)

    def counts(self) -> dict[str, int]:
        """Views so far, by name of the jobs that are being done."""
        return {name: tally.views for name, tally in list(self._running.items())}


class Lane(Worker):
    """A worker that shares its encoder: forward passes take turns, all else goes on beside them."""

    def __init__(self, plan: Plan, batch: int, turn: threading.RLock, log: WorkerLog) -> None:
        self._turn, self.notes = turn, []
        super().__init__(
            plan,
            batch,
            Tally(),
            before_write=lambda: log.keep(dict(self.tally.failures)),
            note=lambda text: self.notes.append(text),
        )

    def begin(self) -> Tally:
        """Count anew."""
        self.tally = Tally()
        self.notes.clear()
        return self.tally

    def encode(self, sets: Sets, layers: tuple[str, ...]):
        with self._turn:
            return super().encode(sets, layers)


def nonce_path(root: Path, run: str) -> Path:
    """The file by which a worker knows that it sees the driver's store."""
    return root / "runs" / f"{run}.nonce"


def index_digest(shards: str) -> str:
    """sha256 of the index of packed shards; empty where there is none."""
    path = Path(shards) / INDEX
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _check_store(setup: Setup) -> None:
    path, end_s = setup.nonce_path, time.monotonic() + setup.patience_s
    while not (path.is_file() and path.read_text() == setup.nonce):
        if time.monotonic() > end_s:
            raise ClusterError(
                f"node {socket.gethostname()} does not see the store.",
                where=setup.root,
                why=f"{path.name}, which this run wrote into it, is not there",
                fix=SHARED,
            )
        time.sleep(min(0.2, setup.patience_s))


def _check_index(setup: Setup) -> None:
    found = index_digest(setup.config.shards)
    if found != setup.index:
        raise ClusterError(
            f"node {socket.gethostname()} does not see the shards.",
            where=setup.config.shards,
            why=f"its {INDEX} is another one: {found[:12]} instead of {setup.index[:12]}"
            if found
            else f"there is no {INDEX}",
            fix=SHARED,
        )


def _plan(setup: Setup) -> Plan:
    """What `Worker` needs to know; which bundles there are comes with the jobs."""
    config = setup.config
    encoder = create(config.encoder, config.weights, config.stride)
    _check_weights(setup, encoder)
    return Plan(
        root=setup.root,
        key=setup.key,
        encoder=encoder.to(setup.device, getattr(torch, setup.key.compute)),
        device=setup.device,
        storages=setup.storages,
        versions=Versions(generations={}, updated=(), before=()),
        bundles=(),
        scenes=(),
        splits={},
        sample=None,
    )


def _check_weights(setup: Setup, encoder: Encoder) -> None:
    found = encoder.weights_digest()
    if found != setup.key.weights:
        raise ClusterError(
            f"node {socket.gethostname()} has other weights of {setup.key.encoder}.",
            where=f"weights={setup.config.weights}",
            why=f"their digest is {found[:12]}, the driver's {setup.key.weights[:12]}",
            fix="copy the same weights and install the same versions of torch and timm on every node",
        )


def _parts(plan: Plan, config: ExtractConfig):
    """Bundle by id, as the catalog has it; the last few are kept, because jobs come bundle by bundle."""
    catalog = Catalog(plan.root / "catalog")
    groups = Groups(
        key=plan.key,
        encoder=plan.encoder,
        storages=plan.storages,
        views=config.views,
        unit_views=config.unit_views,
        packed={scene.id: scene for scene in ShardIndex.open(config.shards).scenes},
    )

    @lru_cache(maxsize=2 * LANES)
    def part(bundle_id: str) -> BundlePlan:
        bundle = Bundle.from_dict(bundle_id, read_json(catalog.folder / f"{bundle_id}.json"))
        return bundle_plan(bundle, catalog.views(bundle), groups, new=False)

    return part
