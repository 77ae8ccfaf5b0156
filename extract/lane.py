"""One thread that does jobs in order, a few at a time behind the work that hands them over."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Lane:
    """A context; leaving it waits for the jobs that are under way.

        with Lane("write", ahead=2) as lane:
            lane.put(job)

    It takes jobs from one thread at a time. After a job has failed, `put` and leaving raise its error.

    Args:
        name: of the thread.
        ahead: jobs that may be under way; `put` waits while there are as many.
    """

    def __init__(self, name: str, ahead: int) -> None:
        self._pool, self._ahead = ThreadPoolExecutor(1, name), ahead
        self._under_way: deque[Future[Any]] = deque()

    def put(self, job: Callable[[], T]) -> Future[T]:
        """Queue a job."""
        while len(self._under_way) >= self._ahead:
            self._under_way.popleft().result()
        future = self._pool.submit(job)
        self._under_way.append(future)
        return future

    def __enter__(self) -> Lane:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        # Also after an error: what is queued here is computed already, and the next run need not do it.
        self._pool.shutdown()
        while kind is None and self._under_way:
            self._under_way.popleft().result()
