"""Batches read ahead: their order, their errors, and threads that end."""

from __future__ import annotations

import threading
import time

import pytest
from strata.errors import TrainError
from strata.store.read_ahead import AHEAD, read_ahead


def test_reading_ahead_keeps_the_order_and_ends_its_threads():
    started = []

    def part(i: int, j: int) -> int:
        started.append(i)
        time.sleep(0.001 * (5 - j))
        return 10 * i + j

    before = threading.active_count()
    jobs = ([lambda i=i, j=j: part(i, j) for j in range(3)] for i in range(100))
    iterator = read_ahead(jobs, tuple)
    assert [next(iterator) for _ in range(3)] == [(0, 1, 2), (10, 11, 12), (20, 21, 22)]
    assert max(started) <= 3 + AHEAD
    iterator.close()
    assert threading.active_count() == before


def test_an_error_comes_where_its_batch_would():
    def broken() -> int:
        raise TrainError("broken.")

    iterator = read_ahead([[lambda: 1], [broken], [lambda: 3]], list)
    assert next(iterator) == [1]
    with pytest.raises(TrainError, match="broken"):
        next(iterator)


def test_nothing_is_begun_behind_an_error_of_the_same_batch():
    begun = []

    def broken() -> int:
        raise TrainError("broken.")

    jobs = [broken, *(lambda i=i: begun.append(i) for i in range(50))]
    with pytest.raises(TrainError, match="broken"):
        next(read_ahead([jobs], list, threads=1))
    assert begun == []


def test_an_error_of_the_join_comes_where_its_batch_would():
    def join(parts: list[int]) -> int:
        if parts == [2]:
            raise TrainError("not together.")
        return sum(parts)

    iterator = read_ahead([[lambda i=i: i] for i in (1, 2, 3)], join)
    assert next(iterator) == 1
    with pytest.raises(TrainError, match="not together"):
        next(iterator)


@pytest.mark.parametrize("threads", [1, 5])
def test_batches_of_no_jobs_and_of_many(threads: int):
    batches = [[lambda i=i, j=j: (i, j) for j in range(i % 7)] for i in range(40)]
    assert list(read_ahead(batches, tuple, threads=threads)) == [
        tuple((i, j) for j in range(i % 7)) for i in range(40)
    ]


def test_closing_waits_for_what_is_under_way_and_drops_the_rest():
    gate, done = threading.Event(), []

    def job(i: int) -> None:
        if i:
            gate.wait()
        done.append(i)

    iterator = read_ahead([[lambda i=i: job(i)] for i in range(100)], list, threads=1)
    next(iterator)
    closing = threading.Thread(target=iterator.close)
    closing.start()
    gate.set()
    closing.join()
    assert done == list(range(len(done)))
    assert len(done) <= 1 + AHEAD + 1
