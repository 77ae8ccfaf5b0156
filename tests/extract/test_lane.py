"""Jobs of a lane: in order, a few at a time, and none after one that failed."""

from __future__ import annotations

import threading

import pytest
from strata.extract.lane import Lane


def test_jobs_are_done_in_order_by_the_time_it_is_left():
    done = []
    with Lane("test", ahead=2) as lane:
        futures = [lane.put(lambda i=i: done.append(i) or 2 * i) for i in range(20)]
    assert done == list(range(20))
    assert [future.result() for future in futures] == list(range(0, 40, 2))


def test_putting_waits_while_as_many_are_under_way():
    gate, third_is_in = threading.Event(), threading.Event()
    with Lane("test", ahead=2) as lane:
        lane.put(gate.wait)
        lane.put(lambda: None)
        putting = threading.Thread(target=lambda: (lane.put(lambda: None), third_is_in.set()))
        putting.start()
        waited = not third_is_in.wait(0.05)
        gate.set()
        putting.join()
    assert waited
    assert third_is_in.is_set()


def test_nothing_is_done_after_a_failure_and_leaving_raises_it():
    done, gate = [], threading.Event()

    def fail():
        gate.wait()
        raise ValueError("full")

    def work():
        with Lane("test", ahead=9) as lane:
            lane.put(fail)
            lane.put(lambda: done.append(1))
            gate.set()

    with pytest.raises(ValueError, match="full"):
        work()
    assert done == []


def test_what_is_queued_is_finished_when_the_work_is_interrupted():
    done, gate = [], threading.Event()

    def work():
        with Lane("test", ahead=9) as lane:
            lane.put(gate.wait)
            lane.put(lambda: done.append(1))
            gate.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [1]
