"""Full, read-only and vanished disks: clear errors, nothing lost."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest
from strata.errors import DiskFullError, StoreError
from strata.store import atomic
from strata.store.feature_store import FeatureStore
from strata.store.inside import check_there
from strata.store.maintain.verify import verify


def fill(pipeline):
    pipeline.add("a", views=4)
    return pipeline


@pytest.fixture(scope="module")
def whole(tmp_path_factory, new_pipeline):
    made = fill(new_pipeline(tmp_path_factory.mktemp("whole")))
    made.extract()
    return made


def mount(*words):
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting needs rights that this process does not have: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """A folder that is to be mounted on, and is not when the test ends."""
    folder = tmp_path / "disk"
    folder.mkdir()
    yield folder
    subprocess.run(["umount", "-l", folder], capture_output=True)


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.ENOSPC, DiskFullError, "disk is full"),
        (errno.EDQUOT, DiskFullError, "quota"),
        (errno.EROFS, StoreError, "read-only"),
        (errno.ESTALE, StoreError, "network file system"),
        (errno.EIO, StoreError, "failing"),
    ],
)
def test_faults_are_named_and_continued_after(pipeline, whole, tree, monkeypatch, number, kind, says):
    fill(pipeline)
    replace, count = os.replace, [0]

    def refusing(source, target):
        count[0] += "f.zarr" in str(target)
        if count[0] > 40:
            raise OSError(number, os.strerror(number))
        replace(source, target)

    monkeypatch.setattr(atomic.os, "replace", refusing)
    with pytest.raises(StoreError) as caught:
        pipeline.extract()
    monkeypatch.undo()
    assert type(caught.value) is kind
    assert says in str(caught.value)
    assert "same command" in caught.value.fix
    assert verify(pipeline.root).faults == []
    assert not list(pipeline.root.rglob("*.partial"))
    pipeline.extract()
    assert tree(pipeline.root) == tree(whole.root)


def test_a_disk_that_is_really_full(disk, whole, tree, new_pipeline):
    mount("-t", "tmpfs", "-o", "size=220k", "tmpfs", disk)
    full = fill(new_pipeline(disk.parent, store="disk/f.zarr"))
    with pytest.raises(DiskFullError, match="disk is full"):
        full.extract(force=True)
    assert verify(full.root).faults == []
    assert all(len(part) for part in FeatureStore.open(full.root).keys())
    mount("-o", "remount,size=8m", disk)
    full.extract()
    assert tree(full.root) == tree(whole.root)


def test_a_disk_that_becomes_read_only(disk, whole, tree, new_pipeline, colour):
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", disk)
    pipeline = fill(new_pipeline(disk.parent, store="disk/f.zarr"))
    encoder = colour()

    def lock(tokens):
        mount("-o", "remount,ro", disk)
        return tokens

    encoder.poison = lock
    with pytest.raises(StoreError, match="cannot be written"):
        pipeline.extract(encoder, layers=["block0", "norm"], storage="f16")
    mount("-o", "remount,rw", disk)
    pipeline.extract()
    assert tree(pipeline.root) == tree(whole.root)


def test_a_disk_that_vanishes_is_not_written_to_below(disk, tmp_path, whole, tree, new_pipeline, monkeypatch):
    (tmp_path / "data").mkdir()
    mount("--bind", tmp_path / "data", disk)
    pipeline = fill(new_pipeline(disk.parent, store="disk/f.zarr"))
    count = [0]

    def vanishing(root):
        count[0] += 1
        if count[0] == 3:
            subprocess.run(["umount", "-l", disk], capture_output=True)
        check_there(root)

    monkeypatch.setattr("strata.extract.worker.check_there", vanishing)
    with pytest.raises(StoreError, match="not there any more"):
        pipeline.extract()
    monkeypatch.undo()
    assert os.listdir(disk) == []
    mount("--bind", tmp_path / "data", disk)
    pipeline.extract()
    assert tree(pipeline.root) == tree(whole.root)


def test_a_store_that_leads_out_is_not_written_to(pipeline, tmp_path):
    fill(pipeline)
    pipeline.extract(layers=["norm"])
    outside = tmp_path / "outside"
    outside.mkdir()
    tokens = next(pipeline.root.glob("features/*/*@*")) / "block0" / "tokens"
    tokens.parent.mkdir()
    tokens.symlink_to(outside)
    with pytest.raises(StoreError, match="leads out"):
        pipeline.extract(layers=["block0"])
    tokens.unlink()
    os.rename(pipeline.root / "sets", outside / "sets")
    (pipeline.root / "sets").symlink_to(outside / "sets")
    before = sorted(outside.rglob("*"))
    with pytest.raises(StoreError, match="leads out"):
        pipeline.extract(layers=["block0"])
    assert sorted(outside.rglob("*")) == before


def test_a_new_folder_is_synced_into_the_one_above(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync

    def seen(handle):
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        sync(handle)

    monkeypatch.setattr(atomic.os, "fsync", seen)
    path = tmp_path / "a" / "b" / "file"
    atomic.write_atomic(path, b"x")
    names = [os.path.relpath(name, tmp_path) for name in synced]
    assert names[:2] == [".", "a"]
    assert names[2].startswith("a/b/.file.")
    assert names[3:] == ["a/b"]
