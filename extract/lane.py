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

    It takes jobs from one thread at a time. A job that fails is the last one: those behind it are not
    done, and `put` or leaving raises its error.

    Args:
        name: of the thread.
        ahead: jobs that may be under way; `put` waits while there are as many.
    """

    def __init__(self, name: str, ahead: int) -> None:
        self._pool, self._ahead = ThreadPoolExecutor(1, name), ahead
        self._under_way: deque[Future[Any]] = deque()
        self._failure: BaseException | None = None

    def put(self, job: Callable[[], T]) -> Future[T]:
        """Queue a job."""
        while len(self._under_way) >= self._ahead:
            self._under_way.popleft().result()
        future = self._pool.submit(self._do, job)
        self._under_way.append(future)
        return future

    def __enter__(self) -> Lane:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        # Also after an error elsewhere: what is queued is computed already, so the next run need not do it.
        self._pool.shutdown()
        while kind is None and self._under_way:
            self._under_way.popleft().result()

    def _do(self, job: Callable[[], T]) -> T:
        if self._failure is not None:
            raise self._failure
        try:
            return job()
        except BaseException as error:
            self._failure = error
            raise
