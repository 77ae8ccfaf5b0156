"""The workers of a run on Ray, as its driver sees them: hired, given jobs, asked for counts, replaced."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import ClusterError, DiskFullError, StrataError
from .ray_jobs import Job
from .ray_worker import LANES, RemoteWorker, Report, Setup
from .stage import identity

TICK_S = 1.0
PATIENCE_S = 30.0
BAD_STARTS = 3


class Foreman(Protocol):
    """Knows the jobs, and hears what becomes of them."""

    @property
    def open(self) -> int: ...
    def take(self, beside: Iterable[Job]) -> Job | None: ...
    def started(self, device_name: str) -> None: ...
    def counted(self, views: dict[str, int]) -> None: ...
    def done(self, job: Job, report: Report) -> None: ...
    def failed(self, job: Job, why: str) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How many workers there are, and what each one reserves."""

    workers: int
    cpus: int
    gpus: int


@dataclass(kw_only=True, eq=False)
class Slot:
    """One worker process, and the answers that it owes."""

    actor: Any
    identity: Any
    opened: Any
    node: str = "backend=ray"
    ready: bool = False
    jobs: dict[Any, Job] = field(default_factory=dict)
    counts: Any = None

    @property
    def owed(self) -> list[Any]:
        """What Ray is to be asked for."""
        waiting = [] if self.ready else [self.opened]
        return [*waiting, *self.jobs, *([] if self.counts is None else [self.counts])]


class Crew:
    """As many workers as wanted, until the foreman has no job left.

    Args:
        ray: the module, connected.
        shape: how many workers of which size.
        setup: what each one is told.
        foreman: gives the jobs.
    """

    def __init__(self, ray: Any, shape: Shape, setup: Setup, foreman: Foreman) -> None:
        self._ray, self._shape, self._setup, self._foreman = ray, shape, setup, foreman
        # A dead worker is replaced here, not by Ray: the new one has to be asked who it is again.
        self._kind = ray.remote(RemoteWorker).options(
            num_cpus=shape.cpus, num_gpus=shape.gpus, max_concurrency=LANES + 1, max_restarts=0
        )
        self._slots: list[Slot] = []
        self._bad_starts, self._asked_s, self._ready_s = 0, 0.0, time.monotonic()

    def run(self) -> None:
        """Return when every job is done or given up.

        Raises:
            ClusterError: Ray is lost, workers do not start, or nodes do not agree.
            DiskFullError: a worker found the disk full.
            StrataError: the encoder cannot be made on a node.
        """
        try:
            while self._foreman.open:
                self._hire()
                self._hand_out()
                self._ask_counts()
                ready, _ = self._ray.wait(self._owed, num_returns=1, timeout=TICK_S)
                for answer in ready:
                    self._hear(answer)
                self._remind()
        except self._ray.exceptions.RayError as error:
            raise ClusterError(
                "the connection to Ray broke off.",
                why=_line(error),
                fix="run the same command again; it continues with what is missing",
            ) from error
        finally:
            for slot in self._slots:
                self._kill(slot)

    @property
    def _owed(self) -> list[Any]:
        return [answer for slot in self._slots for answer in slot.owed]

    def _hire(self) -> None:
        while len(self._slots) < min(self._shape.workers, self._foreman.open):
            actor = self._kind.remote()
            identity, opened = actor.identify.remote(), actor.open.remote(self._setup)
            self._slots.append(Slot(actor=actor, identity=identity, opened=opened))

    def _hand_out(self) -> None:
        # One each before anyone gets a second one.
        for lanes in range(1, LANES + 1):
            for slot in self._slots:
                if slot.ready and len(slot.jobs) < lanes:
                    job = self._foreman.take(slot.jobs.values())
                    if job is not None:
                        slot.jobs[slot.actor.work.remote(job)] = job

    def _ask_counts(self) -> None:
        if time.monotonic() - self._asked_s < TICK_S:
            return
        self._asked_s = time.monotonic()
        for slot in self._slots:
            if slot.jobs and slot.counts is None:
                slot.counts = slot.actor.counts.remote()

    def _hear(self, answer: Any) -> None:
        slot = next(slot for slot in self._slots if answer in slot.owed)
        errors = self._ray.exceptions
        try:
            if answer == slot.opened:
                self._begin(slot)
            elif answer == slot.counts:
                slot.counts = None
                self._foreman.counted(self._ray.get(answer))
            else:
                report = self._ray.get(answer)
                self._foreman.done(slot.jobs.pop(answer), report)
        except errors.RayTaskError as error:
            self._raised(slot, answer, error)
        except errors.RayActorError as error:
            self._died(slot, error)

    def _begin(self, slot: Slot) -> None:
        """The worker has answered who it is, and is ready."""
        worker = self._ray.get(slot.identity)
        slot.node = worker["node"]
        check_code(worker)
        device_name = self._ray.get(slot.opened)
        slot.ready, self._bad_starts = True, 0
        self._foreman.started(device_name)

    def _raised(self, slot: Slot, answer: Any, error: Any) -> None:
        """The worker lives, but the call did not succeed."""
        cause = error.cause
        if isinstance(cause, DiskFullError) or (isinstance(cause, StrataError) and not slot.ready):
            raise cause from None
        job = slot.jobs.pop(answer, None)
        if job is not None:
            self._foreman.failed(job, f"{type(cause).__name__}: {_line(cause)}")
        if not isinstance(cause, StrataError):
            # What broke may have broken the process, as an error of CUDA does.
            self._dismiss(slot, f"{type(cause).__name__} on {slot.node}: {_line(cause)}")

    def _died(self, slot: Slot, error: Any) -> None:
        self._dismiss(slot, f"the worker on {slot.node} died" if slot.ready else "a worker did not start")
        if not slot.ready:
            self._bad_starts += 1
            if self._bad_starts >= BAD_STARTS:
                raise ClusterError(
                    f"{self._bad_starts} workers, one after the other, died before they were ready.",
                    where=slot.node,
                    why=_line(error),
                    fix="install strata on every node, or send it along with `strata submit -- ...`; "
                    "Ray's logs of that node say more",
                )

    def _dismiss(self, slot: Slot, why: str) -> None:
        self._slots.remove(slot)
        self._kill(slot)
        self._foreman.note(f"{why}; a new one takes its place")
        for job in slot.jobs.values():
            self._foreman.failed(job, why)

    def _kill(self, slot: Slot) -> None:
        # It may be gone, or Ray itself: what led here says more.
        with contextlib.suppress(Exception):
            self._ray.kill(slot.actor, no_restart=True)

    def _remind(self) -> None:
        """Say so when there is work and nobody to do it."""
        now = time.monotonic()
        if any(slot.ready for slot in self._slots):
            self._ready_s = now
        elif now - self._ready_s > PATIENCE_S:
            self._ready_s = now
            free = self._ray.available_resources()
            self._foreman.note(
                f"waiting for a worker with {self._shape.cpus} CPUs and {self._shape.gpus} GPUs; Ray has "
                f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs free"
            )


def check_code(worker: dict[str, str]) -> None:
    """Nothing, if a worker runs the driver's code.

    Raises:
        ClusterError: it does not: its shards could hold other numbers.
    """
    own = identity()
    found = {name: worker[name] for name in own}
    if found != own:
        here, there = (f"strata {known['version']}, code {known['code'][:12]}" for known in (own, found))
        raise ClusterError(
            f"node {worker['node']} runs other code than the driver.",
            where=worker["node"],
            why=f"there {there}; here {here}",
            fix="install the same strata on every node, or send it along with `strata submit -- ...`",
        )


def _line(error: BaseException) -> str:
    """The line of a message that names the reason: Ray puts what an actor raised at the end."""
    text = error.what if isinstance(error, StrataError) else str(error)
    lines = text.strip().splitlines() or [type(error).__name__]
    return lines[-1] if re.match(r"\w*Error: ", lines[-1]) else lines[0]
