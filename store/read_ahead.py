"""Batches made by threads while the model computes.

Threads take jobs from one queue, and whoever does the last job of a batch joins it: between a batch's memory
being full and its being given there is one switch of threads. Executors and their futures take four, which is
as long as reading three maps of a small encoder.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

Part = TypeVar("Part")
Whole = TypeVar("Whole")
Jobs = SimpleQueue["Callable[[], None] | None"]

AHEAD = 2
THREADS = min(16, os.cpu_count() or 1)


def read_ahead(
    batches: Iterable[Sequence[Callable[[], Part]]],
    join: Callable[[list[Part]], Whole],
    threads: int = THREADS,
) -> Generator[Whole]:
    """What `join` makes of the parts of each batch, in order; `AHEAD` batches are under way.

    The threads end with the iterator, however it ends. An error is raised where its batch would come.

    Args:
        batches: for each, what gives its parts.
        join: called on one of the threads.
        threads: how many.
    """
    jobs: Jobs = SimpleQueue()
    workers = [threading.Thread(target=_work, args=(jobs,), name="read", daemon=True) for _ in range(threads)]
    waiting: deque[_Batch[Any, Whole]] = deque()
    for worker in workers:
        worker.start()
    try:
        for parts in batches:
            waiting.append(_Batch(parts, join, jobs))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        _clear(jobs)
        for _ in workers:
            jobs.put(None)
        for worker in workers:
            worker.join()


class _Batch(Generic[Part, Whole]):
    """Jobs of one batch, from the first to what is made of them all."""

    def __init__(
        self, parts: Sequence[Callable[[], Part]], join: Callable[[list[Part]], Whole], jobs: Jobs
    ) -> None:
        self._join, self._done = join, SimpleQueue[tuple[Whole | None, BaseException | None]]()
        self._parts: list[Any] = [None] * len(parts)
        self._error: BaseException | None = None
        self._left, self._lock = max(1, len(parts)), threading.Lock()
        for number, part in enumerate(parts):
            jobs.put(lambda number=number, part=part: self._do(number, part))
        if not parts:
            jobs.put(self._finish)

    def result(self) -> Whole:
        whole, error = self._done.get()
        if error is not None:
            raise error
        return whole  # type: ignore[return-value]

    def _do(self, number: int, part: Callable[[], Part]) -> None:
        try:
            if self._error is None:
                self._parts[number] = part()
        except BaseException as error:
            self._error = error
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self._finish()

    def _finish(self) -> None:
        try:
            if self._error is not None:
                raise self._error
            self._done.put((self._join(self._parts), None))
        except BaseException as error:
            self._done.put((None, error))


def _work(jobs: Jobs) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # what it holds may be a batch's memory


def _clear(jobs: Jobs) -> None:
    while not jobs.empty():
        jobs.get_nowait()
