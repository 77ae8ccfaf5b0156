"""Which units become jobs, who gets them, and what happens to those that kill their worker."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from strata.extract.plan import BundlePlan
from strata.extract.ray_jobs import RETRIES, Job, Ledger, bundle_jobs, cpus_each
from strata.extract.ray_run import crew_shape
from strata.store.arrays import ArraySpec
from strata.store.layout import GroupSpec


def group(name: str, unit: int, views: int = 8) -> GroupSpec:
    spec = ArraySpec(shape=(views, 2), dims=("view", "x"), dtype="float32", unit=unit, sharded=True)
    return GroupSpec(folder=name, arrays={"a": spec})


def part(others_unit: int) -> BundlePlan:
    return SimpleNamespace(  # pyright: ignore[reportReturnType]
        bundle=SimpleNamespace(id="b"),
        layers={name: group(name, 4) for name in ("block0", "norm")},
        others={"images": group("images", others_unit)},
    )


def job(name: str, bundle: str = "b") -> Job:
    return Job(bundle=bundle, rows=range(int(name), int(name) + 1), layers={"norm": int(name)})


def test_groups_whose_units_are_the_same_rows_share_a_job():
    jobs = bundle_jobs(part(4), {"block0": [0, 1], "norm": [1], "images": [1]})
    assert [(j.rows, j.layers, j.others) for j in jobs] == [
        (range(4), {"block0": 0}, {}),
        (range(4, 8), {"block0": 1, "norm": 1}, {"images": 1}),
    ]
    assert jobs[1].units == {"block0": [1], "norm": [1], "images": [1]}


def test_units_of_another_size_are_jobs_of_their_own():
    jobs = bundle_jobs(part(8), {"block0": [0, 1], "norm": [0, 1], "images": [0]}, frozenset({5}))
    assert [(j.rows, bool(j.layers), bool(j.others)) for j in jobs] == [
        (range(4), True, False),
        (range(8), False, True),
        (range(4, 8), True, False),
    ]
    assert all(j.retry == {5} for j in jobs)
    assert bundle_jobs(part(8), {}) == []


def test_a_bundle_is_whole_when_its_last_job_is_done():
    ledger = Ledger([job("0"), job("1"), job("2", "c")])
    taken = [ledger.take() for _ in range(3)]
    assert ledger.take() is None
    assert [ledger.done(one) for one in taken if one] == [False, True, True]
    assert ledger.open == 0


def test_a_suspect_waits_for_the_others_and_is_then_alone():
    ledger = Ledger([job("0"), job("1"), job("2")])
    first, second = ledger.take(), ledger.take()
    assert first is not None
    assert second is not None
    assert not ledger.failed(first, "died")
    assert not ledger.failed(second, "died")
    third = ledger.take()
    assert third is not None
    assert third.rows == range(2, 3)
    assert ledger.take(beside=[third]) is None
    assert ledger.take() is first
    assert ledger.take(beside=[first]) is None


def test_a_job_is_given_up_after_three_retries_and_its_bundle_is_not_whole():
    ledger = Ledger([job("0"), job("1")])
    bad, good = ledger.take(), ledger.take()
    assert bad is not None
    assert good is not None
    assert [ledger.failed(bad, "died") for _ in range(RETRIES + 1)] == [False, False, False, True]
    assert ledger.lost == {bad: "died"}
    assert ledger.open == 1
    assert not ledger.done(good)
    assert ledger.open == 0


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus"),
    [([2], 1, 2), ([2], 2, 1), ([3, 3], 3, 1), ([8, 4], 3, 4), ([64], 1, 64), ([2], 5, 1), ([], 1, 1)],
)
def test_every_worker_finds_a_place(nodes, workers, cpus):
    assert cpus_each(nodes, workers) == cpus


@pytest.mark.parametrize(
    ("resources", "workers", "jobs", "gpu", "shape"),
    [
        ([{"CPU": 8}], None, 100, False, (4, 2, 0)),
        ([{"CPU": 8}], None, 1, False, (1, 8, 0)),
        ([{"CPU": 1}], None, 9, False, (1, 1, 0)),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 16, "GPU": 1}, {"CPU": 4}], None, 100, True, (3, 1, 1)),
        ([{"CPU": 16, "GPU": 2}], 1, 100, True, (1, 1, 1)),
        ([{"CPU": 16}], None, 100, True, (1, 1, 1)),
    ],
)
def test_workers_fit_the_cluster(resources, workers, jobs, gpu, shape):
    nodes = [{"Alive": True, "Resources": known} for known in resources]
    nodes.append({"Alive": False, "Resources": {"CPU": 99, "GPU": 9}})
    made = crew_shape(nodes, workers, jobs, gpu=gpu)
    assert (made.workers, made.cpus, made.gpus) == shape
