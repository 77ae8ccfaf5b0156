"""Small files that wait for the disk together: in which order, and what is left of them when it fails."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest
from strata.errors import DiskFullError
from strata.store.processes import machine
from strata.store.together import together


@pytest.fixture
def steps(monkeypatch):
    """What was asked of the system: ("sync" | "rename", name)."""
    seen, sync, rename = [], os.fsync, os.replace

    def seen_sync(handle):
        seen.append(("sync", Path(os.readlink(f"/proc/self/fd/{handle}")).name))
        sync(handle)

    def seen_rename(source, target):
        seen.append(("rename", Path(target).name))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", seen_sync)
    monkeypatch.setattr(os, "replace", seen_rename)
    return seen


def test_all_are_on_the_disk_before_the_first_is_seen_and_folders_after_the_last(tmp_path, steps):
    with together() as files:
        for name in ("z", "a", "m"):
            files.write(tmp_path / "new" / "inner" / name, name.encode())
        assert not (tmp_path / "new" / "inner" / "z").exists()
        files.settle([tmp_path / "new" / "inner", tmp_path])
    kinds = [kind for kind, _ in steps]
    assert kinds == ["sync"] * 3 + ["rename"] * 3 + ["sync"] * 3
    assert [name for _, name in steps[3:6]] == ["z", "a", "m"]
    # A folder that was made is named in the one above it, which is synced for it; each of them once.
    assert sorted(name for _, name in steps[6:]) == sorted([tmp_path.name, "new", "inner"])
    assert all(name.endswith(".partial") for _, name in steps[:3])
    assert {path.name: path.read_bytes() for path in (tmp_path / "new" / "inner").iterdir()} == {
        "z": b"z",
        "a": b"a",
        "m": b"m",
    }


def test_nothing_is_seen_of_a_block_that_fails(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def broken() -> None:
        with together() as files:
            files.write(tmp_path / "a", b"new")
            files.write(tmp_path / "b", b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_no_temporary_file(tmp_path, monkeypatch, call):
    real, count = getattr(os, call), [0]

    def full(*args):
        count[0] += 1
        if count[0] == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    def three_files() -> None:
        with together() as files:
            for name in ("a", "b", "c"):
                files.write(tmp_path / name, b"x")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(DiskFullError):
        three_files()
    assert os.listdir(tmp_path) == ([] if call == "fsync" else ["a"])


def test_temporary_files_of_dead_processes_are_swept(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    dead = folder / f".x.{machine()}-{2**22 + 1}-0.partial"
    dead.write_bytes(b"")
    with together() as files:
        files.write(folder / "b", b"x")
    assert os.listdir(folder) == ["b"]


def test_a_write_that_takes_a_part_is_gone_on_with(tmp_path, monkeypatch):
    """As of a disk with room for a part, which says no to the rest alone."""
    opened = Path.open

    class Halves(io.FileIO):
        def write(self, data):
            return super().write(data[: max(1, len(data) // 2)])

    def halving(path, mode="r", *args, **words):
        return Halves(path, "x") if mode == "xb" else opened(path, mode, *args, **words)

    monkeypatch.setattr(Path, "open", halving)
    with together() as files:
        files.write(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"
