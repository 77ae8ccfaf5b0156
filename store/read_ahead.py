"""Batches made by threads while the model computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Whole = TypeVar("Whole")

AHEAD = 2
THREADS = min(16, os.cpu_count() or 1)


def read_ahead(
    batches: Iterable[Sequence[Callable[[], Part]]], join: Callable[[list[Part]], Whole]
) -> Generator[Whole]:
    """What `join` makes of the parts of each batch, in order; `AHEAD` batches are under way.

    The threads end with the iterator, however it ends. An error is raised where its batch would come.

    Args:
        batches: for each, what gives its parts.
        join: called on a thread of its own.
    """
    parts, joiner = ThreadPoolExecutor(THREADS, "read"), ThreadPoolExecutor(1, "join")
    waiting: deque[Future[Whole]] = deque()

    def started(jobs: Sequence[Callable[[], Part]]) -> Future[Whole]:
        futures = [parts.submit(job) for job in jobs]
        return joiner.submit(lambda: join([future.result() for future in futures]))

    try:
        for jobs in batches:
            waiting.append(started(jobs))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        parts.shutdown(cancel_futures=True)
        joiner.shutdown(cancel_futures=True)
