"""Jobs for workers: what each one writes, who gets which, and what becomes of it. No Ray, no files.

A job is one run of rows of one bundle, with every group that is owed a unit of just these rows: so a
small bundle is one job that decodes each view once, and of a large one the layers are jobs of their
own, and so are pixels and points, whose units are of another size.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .plan import BundlePlan

RETRIES = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One run of rows of one bundle.

    Attributes:
        bundle: its id.
        rows: of the bundle.
        layers: the unit to write, by layer.
        others: the unit to write, by group: images, geometry, points.
        retry: rows of the bundle that failed earlier and are computed again.
    """

    bundle: str
    rows: range
    layers: dict[str, int] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    retry: frozenset[int] = frozenset()

    @property
    def units(self) -> dict[str, list[int]]:
        """By group name, as `Worker.work` takes them."""
        return {name: [unit] for name, unit in {**self.layers, **self.others}.items()}

    @property
    def name(self) -> str:
        return f"rows {self.rows.start:,} to {self.rows.stop - 1:,} of bundle {self.bundle}"


def bundle_jobs(
    part: BundlePlan, owed: Mapping[str, Sequence[int]], retry: frozenset[int] = frozenset()
) -> list[Job]:
    """The jobs of a bundle, in order of rows.

    Args:
        part: the bundle and its groups.
        owed: by group name, the units to write.
        retry: rows that failed earlier.
    """
    by_rows: dict[tuple[int, int], Job] = {}
    for kind, specs in (("layers", part.layers), ("others", part.others)):
        for name, spec in specs.items():
            for unit in owed.get(name, ()):
                rows = next(iter(spec.by_unit.values())).rows(unit)
                place = (rows.start, rows.stop)
                job = by_rows.setdefault(place, Job(bundle=part.bundle.id, rows=rows, retry=retry))
                getattr(job, kind)[name] = unit
    return [by_rows[place] for place in sorted(by_rows)]


def cpus_each(nodes: Iterable[int], workers: int) -> int:
    """CPUs that each worker may have, so that all of them find a place on nodes with so many CPUs."""
    nodes = list(nodes)
    fitting = (n for n in range(max(nodes, default=1), 0, -1) if sum(node // n for node in nodes) >= workers)
    return next(fitting, 1)


class Ledger:
    """Jobs that wait, that are out and that were given up.

    A job that was out when its worker died may be what killed it. It waits until the untried jobs are
    out, and is then alone with a worker: no other job is lost to it.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._fresh = deque(jobs)
        self._suspects: deque[Job] = deque()
        self._failures: dict[Job, int] = defaultdict(int)
        self._open: dict[str, int] = defaultdict(int)
        for job in self._fresh:
            self._open[job.bundle] += 1
        self.lost: dict[Job, str] = {}

    @property
    def open(self) -> int:
        """Jobs that wait or are out."""
        return sum(self._open.values())

    def take(self, beside: Iterable[Job] = ()) -> Job | None:
        """The next job for a worker that has the jobs `beside` already; None when there is none for it."""
        beside = list(beside)
        if any(job in self._failures for job in beside):
            return None
        if self._fresh:
            return self._fresh.popleft()
        return self._suspects.popleft() if self._suspects and not beside else None

    def done(self, job: Job) -> bool:
        """The job is on disk. Returns whether its bundle is whole now."""
        self._open[job.bundle] -= 1
        return not self._open[job.bundle] and all(lost.bundle != job.bundle for lost in self.lost)

    def failed(self, job: Job, why: str) -> bool:
        """The job has to be done again. Returns whether it was tried often enough, and is given up."""
        self._failures[job] += 1
        if self._failures[job] <= RETRIES:
            self._suspects.append(job)
            return False
        self.lost[job] = why
        self._open[job.bundle] -= 1
        return True
