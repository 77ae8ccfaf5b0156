"""Interrupted at any write and run again, an extraction gives the bytes of an undisturbed one."""

from __future__ import annotations

import os
import threading

import pytest
from strata.errors import DiskFullError
from strata.store import atomic
from strata.store.feature_store import FeatureStore
from strata.store.processes import machine


class Killed(BaseException):
    """Stands for the end of the process."""


def fill(pipeline):
    pipeline.add("a", views=3)
    pipeline.add("b", views=2)
    return pipeline


def killing_at(monkeypatch, step, after):
    """Stop at the step-th rename, before it or right after it; None counts them all."""
    count, lock = [0], threading.Lock()
    rename = os.replace

    def replace(source, target):
        if "shards" in str(target):
            return rename(source, target)
        with lock:  # layers of a bundle are committed by several threads
            count[0] += 1
            number = count[0]
        if number == step and not after:
            raise Killed
        rename(source, target)
        if number == step:
            raise Killed
        return None

    monkeypatch.setattr(atomic.os, "replace", replace)
    return count


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_stopped_at_writes(tmp_path, new_pipeline, tree, monkeypatch, after):
    whole = fill(new_pipeline(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        count = killing_at(patch, None, after)
        whole.extract()
    expected = tree(whole.root)
    assert count[0] > 40
    for step in range(1, count[0] + 1, 6):
        cut = fill(new_pipeline(tmp_path / f"cut{step}"))
        with monkeypatch.context() as patch:
            killing_at(patch, step, after)
            with pytest.raises(Killed):
                cut.extract()
        visible = FeatureStore(cut.root).keys()
        assert all(set(layers) <= {"block0", "norm"} for key in visible for layers in key.bundles.values())
        cut.extract()
        assert tree(cut.root) == expected, f"killed at write {step}"


def test_what_is_there_is_not_computed_again(pipeline, colour, monkeypatch):
    fill(pipeline)
    killing_at(monkeypatch, 34, after=True)
    with pytest.raises(Killed):
        pipeline.extract()
    monkeypatch.undo()
    encoder = colour()
    summary = pipeline.extract(encoder)
    assert 0 < sum(encoder.seen) < 5
    assert summary.reused == 5 - sum(encoder.seen)
    again = colour()
    assert pipeline.extract(again).reused == 5
    assert again.seen == []


def test_a_unit_of_another_size_is_not_taken_for_done(pipeline, tree, new_pipeline, tmp_path, monkeypatch):
    fill(pipeline)
    killing_at(monkeypatch, 34, after=True)
    with pytest.raises(Killed):
        pipeline.extract()
    monkeypatch.undo()
    pipeline.extract(unit_views=3)
    whole = fill(new_pipeline(tmp_path / "whole"))
    whole.extract(unit_views=3)
    stored, expected = (FeatureStore.open(p.root).select("colour").load() for p in (pipeline, whole))
    for layer in ("block0", "norm"):
        assert (stored[0].tokens[layer] == expected[0].tokens[layer]).all()


def test_full_disk_names_itself_and_leaves_nothing_half_visible(
    pipeline, colour, tree, monkeypatch, tmp_path, new_pipeline
):
    fill(pipeline)
    sync, count = os.fsync, [0]

    def full(handle):
        count[0] += 1
        if count[0] > 60:
            raise OSError(28, "No space left on device")
        sync(handle)

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(DiskFullError) as caught:
        pipeline.extract()
    monkeypatch.undo()
    assert "disk is full" in caught.value.what
    assert "again" in caught.value.fix
    assert not list(pipeline.root.rglob("*.partial"))
    pipeline.extract()
    whole = fill(new_pipeline(tmp_path / "whole"))
    whole.extract()
    assert tree(pipeline.root) == tree(whole.root)


def test_too_large_a_plan_is_refused_before_it_starts(pipeline, monkeypatch):
    fill(pipeline)
    monkeypatch.setattr("strata.extract.plan.free_bytes", lambda path: 100)
    with pytest.raises(DiskFullError) as caught:
        pipeline.extract()
    assert "fewer layers" in caught.value.fix
    assert not pipeline.root.exists()
    assert pipeline.extract(force=True).computed == 5


def test_abandoned_temporary_files_are_removed(pipeline):
    fill(pipeline)
    pipeline.extract(layers=["block0"])
    folder = next(pipeline.root.glob("features/*/*"))
    left = folder / "norm" / "tokens" / f".c.0.0.0.0.{machine()}-999999999-0.partial"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    pipeline.extract(layers=["norm"])
    assert not left.exists()


def test_same_input_same_bytes(tmp_path, new_pipeline, tree):
    stores = [fill(new_pipeline(tmp_path / name)) for name in ("one", "two")]
    for store in stores:
        store.extract()
    assert tree(stores[0].root) == tree(stores[1].root)
