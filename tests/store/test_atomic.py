"""Files are whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from strata.errors import DiskFullError, StoreError
from strata.store import atomic
from strata.store.atomic import (
    read_json,
    remove_abandoned,
    whole_file,
    whole_folder,
    write_atomic,
    write_json,
)
from strata.store.processes import machine


def test_parts_become_one_file(tmp_path):
    write_atomic(tmp_path / "a" / "b", iter([b"one", bytearray(b"two"), memoryview(b"three")]))
    assert (tmp_path / "a" / "b").read_bytes() == b"onetwothree"
    write_atomic(tmp_path / "a" / "b", b"new")
    assert (tmp_path / "a" / "b").read_bytes() == b"new"
    assert os.listdir(tmp_path / "a") == ["b"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def parts():
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, parts())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(("number", "kind"), [(28, DiskFullError), (122, DiskFullError), (5, StoreError)])
def test_faults_of_the_disk_are_named(tmp_path, monkeypatch, number, kind):
    def full(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        write_atomic(tmp_path / "file", b"x")
    assert type(caught.value) is kind
    assert caught.value.where == str(tmp_path / "file")
    assert os.listdir(tmp_path) == []


def test_a_folder_is_whole_or_not_there(tmp_path):
    with whole_folder(tmp_path / "a" / "b") as partial:
        (partial / "one").write_bytes(b"1")
        assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a" / "b" / "one").read_bytes() == b"1"

    def taken():
        with whole_folder(tmp_path / "a" / "b") as partial:
            (partial / "two").write_bytes(b"2")

    with pytest.raises(StoreError, match="cannot be written"):
        taken()

    def stopped():
        with whole_folder(tmp_path / "a" / "c"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert os.listdir(tmp_path / "a") == ["b"]
    assert os.listdir(tmp_path / "a" / "b") == ["one"]


@pytest.fixture
def steps(monkeypatch):
    """What was synced, whether it had a temporary name then, and every rename."""
    seen, sync, rename = [], os.fsync, os.replace

    def seen_sync(handle):
        path = os.readlink(f"/proc/self/fd/{handle}")
        kind = "folder" if os.path.isdir(path) else "file"
        seen.append(f"partial {kind}" if ".partial" in os.path.basename(path) else kind)
        sync(handle)

    def seen_rename(source, target):
        seen.append("rename")
        rename(source, target)

    monkeypatch.setattr(atomic.os, "fsync", seen_sync)
    monkeypatch.setattr(atomic.os, "replace", seen_rename)
    return seen


def test_the_files_of_a_folder_are_synced_before_its_rename(tmp_path, steps):
    with whole_folder(tmp_path / "a") as partial:
        (partial / "one").write_bytes(b"1")
        (partial / "two").write_bytes(b"2")
    assert steps == ["file", "file", "partial folder", "rename", "folder"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(StoreError) as caught:
        write_atomic(tmp_path / "taken" / "file", b"x")
    assert "cannot be written" in caught.value.what


def test_data_are_synced_before_the_rename_and_the_folder_after(tmp_path, steps):
    write_atomic(tmp_path / "file", b"x")
    assert steps == ["partial file", "rename", "folder"]


def test_json_comes_back_and_damage_is_named(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": "é"})
    assert read_json(path) == {"b": 1, "a": "é"}
    assert path.read_text().splitlines()[1] == '  "b": 1,'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    for data in (b"{", b"\xff\xfe\xff", b"[" * 200_000):
        path.write_bytes(data)
        with pytest.raises(StoreError) as caught:
            read_json(path)
        assert caught.value.where == str(path)
    with pytest.raises(StoreError, match="is missing"):
        read_json(tmp_path / "none.json")


def test_temporary_files_of_the_dead_are_removed(tmp_path):
    dead, alive = 999_999_999, os.getpid()
    names = {
        f".c.0.{machine()}-{dead}-0.partial": False,
        f".c.0.{machine()}-{alive}-0.partial": True,
        f".c.0.elsewhere-{dead}-0.partial": True,
        "c.0": True,
    }
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / f".d.{machine()}-{dead}-1.partial").mkdir()
    remove_abandoned(tmp_path)
    assert not (tmp_path / f".d.{machine()}-{dead}-1.partial").exists()
    assert {name: (tmp_path / name).exists() for name in names} == names
    remove_abandoned(Path(tmp_path / "none"))


def test_a_library_s_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "deep" / "file"
    with whole_file(path) as partial:
        partial.write_bytes(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"

    def fails():
        with whole_file(path) as partial:
            partial.write_bytes(b"half of")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_file_system_that_syncs_no_folders_is_written_to(tmp_path, monkeypatch):
    sync = os.fsync

    def files_alone(handle):
        if Path(os.readlink(f"/proc/self/fd/{handle}")).is_dir():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(handle)

    monkeypatch.setattr(atomic.os, "fsync", files_alone)
    write_atomic(tmp_path / "a" / "file", b"x")
    with whole_folder(tmp_path / "b") as folder:
        (folder / "file").write_bytes(b"y")
    assert [(tmp_path / name / "file").read_bytes() for name in "ab"] == [b"x", b"y"]
