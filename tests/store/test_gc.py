"""What nobody needs goes, what anybody may need stays."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from strata.errors import ConfigError
from strata.store.atomic import read_json, write_json
from strata.store.feature_store import FeatureStore
from strata.store.maintain import gc as gc_module
from strata.store.maintain.garbage import find_garbage
from strata.store.maintain.gc import collect, gc, seconds
from strata.store.maintain.heartbeats import live_runs, runs_begun
from strata.store.maintain.verify import verify
from strata.store.processes import machine


@pytest.fixture
def filled(pipeline, new_view):
    pipeline.add("a")
    pipeline.extract(layers=["norm"])
    return pipeline


def found(pipeline, before_s=None):
    """By path below the store, the kind."""
    garbage = find_garbage(pipeline.root, time.time() + 1 if before_s is None else before_s)
    return {item.path.relative_to(pipeline.root).as_posix().split("/")[0]: item.kind for item in garbage}


def command(pipeline, **words):
    said = io.StringIO()
    console = Console(file=said, width=200)
    options = {"older_than": "0s", "delete": False, "as_json": False, **words}
    assert gc(str(pipeline.root), console, **options) == 0
    return said.getvalue()


def test_a_whole_store_keeps_everything(filled, tree):
    before = tree(filled.root)
    assert "nothing can go" in command(filled, delete=True)
    assert tree(filled.root) == before


def test_unfinished_work_is_kept_and_it_is_said_until_when(filled):
    filled.extract(layers=["block0"])
    layer = next(filled.root.glob("features/*/*/block0"))
    (layer / "zarr.json").unlink()
    for path in (layer, *layer.rglob("*")):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    day = 86_400
    age_days = int(time.time() - 1_000_000_000) // day + 2
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(1_000_000_000 + age_days * day))
    kept = command(filled, older_than=f"{age_days}d")
    assert "kept       1 unfinished with " in kept
    assert "the same extraction continues them" in kept
    assert f"from {until} on, {age_days}d after its last change" in kept
    document = json.loads(command(filled, older_than=f"{age_days}d", as_json=True))
    assert [one["path"] for one in document["resumable"]] == [str(layer.relative_to(filled.root))]
    assert document["garbage"] == []
    gone = command(filled)
    assert "kept" not in gone
    assert "the layer was never committed; the same extraction would continue them" in gone


def test_nothing_is_removed_before_it_is_asked_for(filled, tree):
    (filled.root / "catalog" / ".x.json.elsewhere-1-0.partial").write_bytes(b"half")
    before = tree(filled.root)
    said = command(filled)
    assert ".x.json" in said
    assert "--yes" in said
    assert tree(filled.root) == before
    assert "nothing can go" in command(filled, older_than="7d")
    removed = json.loads(command(filled, as_json=True, delete=True))["removed"]
    assert removed == ["catalog/.x.json.elsewhere-1-0.partial"]
    assert len(tree(filled.root)) == len(before) - 1


def test_features_of_older_images_go_once_they_are_there_anew(filled, new_view):
    import numpy as np

    new = new_view("000", np.random.default_rng(5), 24, 16)
    filled.change("a", lambda views: [new, *views[1:]])
    old = next(filled.root.glob("features/*/*@*"))
    filled.extract(layers=["block0"], encoder=None, grid="aspect:5")
    # Under another key the new images have features; this key has none of them yet.
    assert found(filled) == {}
    filled.extract(layers=["norm"])
    assert found(filled) == {"features": "stale", "pixels": "unused", "points": "unused", "catalog": "unused"}
    command(filled, delete=True)
    assert not old.exists()
    assert found(filled) == {}
    assert verify(filled.root).faults == []
    assert len(FeatureStore.open(filled.root).select("colour", grid="aspect:6")) == 3


def test_a_layer_that_was_begun_and_a_key_without_features(filled):
    layer = next(filled.root.glob("features/*/*/norm"))
    copy = layer.with_name("block0")
    shutil.copytree(layer, copy)
    (copy / "zarr.json").unlink()
    assert found(filled) == {"features": "unfinished"}
    command(filled, delete=True)
    assert not copy.exists()
    assert layer.exists()
    (layer / "zarr.json").unlink()
    assert found(filled) == {
        "features": "unused",
        "pixels": "unused",
        "points": "unused",
        "catalog": "unused",
    }
    command(filled, delete=True)
    assert not [path for path in filled.root.glob("*/*@*") if path.is_dir()]
    filled.extract(layers=["norm"])
    assert verify(filled.root).faults == []


def test_what_a_live_run_names_stays(filled):
    layer = next(filled.root.glob("features/*/*/norm"))
    (layer / "zarr.json").unlink()
    path = next(filled.root.glob("runs/*.json"))
    document = {**read_json(path), "state": "running", "heartbeat": datetime.now(UTC).isoformat()}
    write_json(path, {**document, "owner": f"{machine()}:{os.getpid()}"})
    assert [run.name for run in live_runs(filled.root)] == [document["run"]]
    assert found(filled) == {}
    write_json(path, {**document, "owner": f"{machine()}:999999999"})
    assert "features" in found(filled)
    old = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    elsewhere = {**document, "owner": "elsewhere:1", "heartbeat": old}
    write_json(path, elsewhere)
    assert found(filled) == {}  # its record was just written: the clock of its machine is wrong
    os.utime(path, (time.time() - 3600,) * 2)
    assert "features" in found(filled)
    write_json(path, {**elsewhere, "state": "finished"})
    assert "features" in found(filled)


def test_nothing_goes_once_a_run_has_begun(filled):
    (next(filled.root.glob("features/*/*/norm")) / "zarr.json").unlink()
    begun, garbage = runs_begun(filled.root), find_garbage(filled.root, time.time() + 1)
    assert garbage
    filled.extract(layers=["block0"])
    console = Console(file=io.StringIO())
    assert collect(filled.root, garbage, begun, console) == []


def test_what_a_process_is_writing_stays(filled):
    for pid, kept in ((os.getpid(), True), (999_999_999, False)):
        partial = filled.root / f".zarr.json.{machine()}-{pid}-0.partial"
        partial.write_bytes(b"half")
        command(filled, delete=True)
        assert partial.exists() is kept


def test_what_a_writer_sweeps_in_the_same_moment_is_gone_all_the_same(filled, monkeypatch):
    left = [filled.root / f".zarr.json.{machine()}-999999999-{n}.partial" for n in range(2)]
    for path in left:
        path.write_bytes(b"half")
    still = gc_module._still

    def swept(item, *args):
        found = still(item, *args)
        left[0].unlink(missing_ok=True)
        return found

    monkeypatch.setattr(gc_module, "_still", swept)
    garbage = find_garbage(filled.root, time.time() + 1)
    removed = collect(filled.root, garbage, runs_begun(filled.root), Console(file=io.StringIO()))
    assert [item.path for item in removed] == [left[1]]


def test_ages():
    assert [seconds(age) for age in ("7d", "12h", "30m", "5s")] == [604800, 43200, 1800, 5]
    with pytest.raises(ConfigError, match="no age"):
        seconds("week")
