"""A disk that is full from any step on: a clear error, nothing half-visible, and the same call continues."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import strata
from rich.console import Console
from strata.configs.schema import ExportConfig, PullConfig, PushConfig, SetsConfig, SynthConfig
from strata.errors import DiskFullError
from strata.extract.export.command import FORMATS, export
from strata.extract.scenes.synth_command import synth
from strata.extract.sets_command import make
from strata.store.maintain.verify import verify
from strata.store.remote.commands import pull, push

QUIET = Console(quiet=True)


class Disk:
    """The steps at which something is put on a disk, and from one of them on the disk is full.

    Args:
        folder: that is written to.
        full_from: the step from which on it is full; None = never.
    """

    def __init__(self, folder: Path, full_from: str | None = None) -> None:
        self.steps: list[str] = []
        self._folder, self._full_from, self._lock = folder, full_from, threading.Lock()

    def install(self, patch: pytest.MonkeyPatch) -> Disk:
        for name in ("replace", "mkdir", "writev", "sendfile", "fsync"):
            patch.setattr(os, name, self._stepping(getattr(os, name), name))
        opened = Path.open
        patch.setattr(Path, "open", lambda path, mode="r", *a, **k: self._opened(opened, path, mode, *a, **k))
        return self

    def step(self, name: str, what: object) -> None:
        path = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else str(what)
        if not path.startswith(str(self._folder)):
            return
        with self._lock:
            self.steps.append(f"{name} {kind_of(os.path.relpath(path, self._folder))}")
            if self._full_from in self.steps:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def _stepping(self, real, name):
        def call(*args, **words):
            self.step(name, args[0])
            return real(*args, **words)

        return call

    def _opened(self, opened, path, mode, *args, **words):
        if mode not in ("wb", "xb"):
            return opened(path, mode, *args, **words)
        disk, raw = self, "buffering" in words

        class Raw(io.FileIO):
            def write(self, data):
                disk.step("write", self.name)
                return super().write(data)

        file = Raw(path, mode[0])
        return file if raw else io.BufferedWriter(file)


def kind_of(name: str) -> str:
    """`features/c`, `catalog/zarr.json`: where a file is, and what it is, whatever it is numbered."""
    top, _, rest = name.partition("/")
    last = re.sub(r"[.][^.]*[.]partial$", "", rest.rpartition("/")[2] or top).lstrip(".")
    return f"{top if rest else '.'}/{re.sub(r'[0-9a-f]{16}', 'N', re.sub(r'^c[.].*', 'c', last))}"


def tree(folder: Path) -> dict[str, Any]:
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {name.as_posix(): content(path) for name, path in found.items() if name.parts[0] != "runs"}


def content(path: Path) -> Any:
    """The bytes; of safetensors, whose library writes its header in any order, what they say."""
    data = path.read_bytes()
    if path.suffix != ".safetensors":
        return data
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def check(work, folder: Path, monkeypatch, reset, chosen=".*") -> int:
    """Do the work on a disk that is full from a step of each kind on, and again with room; how many kinds.

    Args:
        work: writes into the folder.
        reset: brings the folder to where the work begins.
        chosen: a pattern of the steps, such as `replace features/c`.
    """
    reset()
    with monkeypatch.context() as patch:
        steps = Disk(folder).install(patch).steps
        work()
    whole, kinds = tree(folder), {step for step in steps if re.fullmatch(chosen, step)}
    for step in sorted(kinds):
        reset()
        with monkeypatch.context() as patch:
            Disk(folder, full_from=step).install(patch)
            with pytest.raises(DiskFullError) as caught:
                work()
        assert "disk is full" in str(caught.value), step
        assert not list(folder.rglob("*.partial")), step
        if (folder / "zarr.json").exists():
            assert verify(folder).faults == [], step
        work()
        assert tree(folder) == whole, step
    return len(kinds)


@pytest.fixture(scope="module", autouse=True)
def _no_waiting(quick_disk_of_module: None) -> None:
    pass


@pytest.fixture(scope="module")
def filled(tmp_path_factory, new_pipeline):
    made = new_pipeline(tmp_path_factory.mktemp("filled"))
    made.add("a", views=2)
    made.extract(unit_views=1)
    return made


@pytest.fixture
def begin(filled, tmp_path):
    """Brings a copy of the store, or nothing, to a folder."""

    def of(folder: Path, empty: bool):
        def reset() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            if not empty:
                shutil.copytree(filled.root, folder)

        return folder, reset

    return of


@pytest.mark.parametrize(
    "derive",
    [strata.l2, lambda a: strata.concat(a, a), lambda a: strata.pca(a, 2)],
    ids=["l2", "concat", "pca"],
)
def test_derived_features(begin, tmp_path, monkeypatch, derive):
    folder, reset = begin(tmp_path / "f.zarr", empty=False)

    def work() -> None:
        features = strata.open_store(folder).select("colour", layers=["norm"])
        strata.materialise(derive(features), console=QUIET)

    assert check(work, folder, monkeypatch, reset) > 15


def test_lists_and_labels_of_an_extraction(filled, new_pipeline, tmp_path, monkeypatch):
    made = new_pipeline(tmp_path, source=filled.source)

    def work() -> None:
        made.extract(unit_views=1)

    def reset() -> None:
        shutil.rmtree(made.root, ignore_errors=True)

    lists_and_labels = r"\w+ ((splits|sets|[.])/.*|features/(view|scene|c|zarr[.]json))"
    assert check(work, made.root, monkeypatch, reset, lists_and_labels) > 15


@pytest.mark.parametrize("way", ["pull", "push"])
def test_copies(filled, begin, tmp_path, monkeypatch, way):
    folder, reset = begin(tmp_path / "copy.zarr", empty=True)

    def work() -> None:
        if way == "pull":
            pull(str(filled.root), PullConfig(out=str(folder)), QUIET)
        else:
            push(str(filled.root), PushConfig(to=str(folder)), QUIET)

    # Of the three parts one tells all; a push ends with what a web server shows.
    chosen = r"\w+ (features|catalog|sets|[.])/.*" if way == "pull" else r"\w+ [.]/.*"
    assert check(work, folder, monkeypatch, reset, chosen) > (15 if way == "pull" else 3)


@pytest.mark.parametrize("kind", FORMATS)
def test_exports(filled, begin, tmp_path, monkeypatch, kind):
    folder, reset = begin(tmp_path / "out", empty=True)

    def work() -> None:
        words = {"store": str(filled.root), "encoder": "colour", "out": str(folder), "format": kind}
        export(ExportConfig(**words), QUIET)

    assert check(work, folder, monkeypatch, reset) > 5


def test_view_sets(tmp_path, monkeypatch):
    scenes, out = tmp_path / "scenes", tmp_path / "sets"
    synth(SynthConfig(out=str(scenes), scenes=1, views=3, width=32, height=24), QUIET)

    def work() -> None:
        make(SetsConfig(scenes=str(scenes), out=str(out / "sets.json"), set_count=1, set_views=2), QUIET)

    assert check(work, out, monkeypatch, lambda: shutil.rmtree(out, ignore_errors=True)) >= 4


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"mounting needs rights that this process does not have: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], capture_output=True)


@pytest.mark.parametrize("kind", FORMATS)
def test_exports_to_a_disk_that_is_really_full(filled, disk, tmp_path, kind):
    words = {"store": str(filled.root), "encoder": "colour", "fields": ["tokens", "image", "depth_m"]}

    def work(out: Path) -> None:
        export(ExportConfig(**words, out=str(out), format=kind), QUIET)

    work(tmp_path / "whole")
    (disk / "big").write_bytes(bytes(60 * 1024))
    with pytest.raises(DiskFullError, match="disk is full"):
        work(disk / "out")
    assert set(tree(disk / "out")) <= {"export.json"}
    (disk / "big").unlink()
    work(disk / "out")
    assert tree(disk / "out") == tree(tmp_path / "whole")
