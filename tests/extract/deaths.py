"""Extractions that are killed, and processes beside them; `test_extract_killed.py` runs this as a script.

One process loads everything and forks those that are killed: each starts in a moment. A step is what a
process does to the disk: half of a part written, a file or folder synced, renamed, removed or made. A process
dies before a step or at once after it, or at any moment at all.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from strata.configs.schema import ExtractConfig
from strata.extract.pack import pack_scenes
from strata.extract.run import extract, open_plan
from strata.store.feature_store import FeatureStore
from strata.store.maintain.garbage import find_garbage
from strata.store.maintain.gc import collect
from strata.store.maintain.heartbeats import runs_begun
from strata.store.view_groups import layer_group
from strata.store.writer import row_labels

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("strata_tests_conftest", CONFTEST)
shared = importlib.util.module_from_spec(_SPEC)
sys.modules["strata_tests_conftest"] = shared
_SPEC.loader.exec_module(shared)

ROUND_S = 0.25
"""Between two rounds of those that run beside: they are not to take the processors for themselves."""
SILENT = Console(file=open(os.devnull, "w"))  # noqa: SIM115


class Steps:
    """Counts what this process does to the disk, and kills it at one of the steps."""

    def __init__(self, at: int | None = None, after: bool = False) -> None:
        self.count, self._at, self._after = 0, at, after
        self._lock = threading.Lock()

    def install(self) -> Steps:
        for name in ("replace", "unlink", "mkdir", "fsync"):
            setattr(os, name, self._stepping(getattr(os, name)))
        opened, writev = Path.open, os.writev
        Path.open = lambda path, mode="r", *a, **k: self._halving(  # type: ignore[method-assign]
            opened(path, mode, *a, **k), mode
        )
        os.writev = self._stepping(lambda handle, pieces: writev(handle, _first_half(pieces)))
        return self

    @contextmanager
    def step(self) -> Iterator[None]:
        with self._lock:
            self.count += 1
            if self.count == self._at and not self._after:
                os.kill(os.getpid(), signal.SIGKILL)
            yield
            if self.count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)

    def _stepping(self, real: Callable) -> Callable:
        def call(*args, **words):
            with self.step():
                return real(*args, **words)

        return call

    def _halving(self, file, mode):
        """A file whose parts are written in two steps each."""
        if mode != "wb":
            return file
        steps = self

        class Halves:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            @staticmethod
            def write(part):
                for half in (part[: len(part) // 2], part[len(part) // 2 :]):
                    with steps.step():
                        file.write(half)
                        file.flush()

        return Halves()


def _first_half(pieces: list[memoryview]) -> list[memoryview]:
    """As the system may do, too: the caller has to come again with the rest."""
    return [pieces[0][: pieces[0].nbytes // 2]] if pieces[0].nbytes > 32 else pieces[:1]


class Store:
    """A store that is to be filled from the shards of a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.root = folder / name
        words = {"layers": ["block0", "norm"], "grid": "aspect:6", "unit_views": 2, "batch": 2}
        paths = {"shards": str(folder / "shards"), "store": str(self.root)}
        self.config = ExtractConfig(encoder="colour", **paths, **words)

    def extract(self) -> None:
        extract(self.config, encoder=shared.ColourEncoder())

    def plan(self) -> None:
        open_plan(self.config, encoder=shared.ColourEncoder())

    def collect(self) -> None:
        begun = runs_begun(self.root)
        collect(self.root, find_garbage(self.root, time.time()), begun, SILENT)

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file() and path.relative_to(self.root).parts[0] != "runs"
        }


def fork(work: Callable[[], object]) -> int:
    """A process that does the work; returns its id. It ends with 0, or with 1 and a word on stderr."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def ended(pid: int) -> int:
    """The exit code, negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def steps_of(folder: Path) -> int:
    """How many steps an undisturbed extraction takes."""
    reader, writer = os.pipe()
    store = Store(folder, "counted.zarr")

    def work() -> None:
        steps = Steps().install()
        store.extract()
        os.write(writer, str(steps.count).encode())

    assert ended(fork(work)) == 0
    return int(os.read(reader, 20))


def read_whole_layers(root: Path, expected: dict[str, dict[str, np.ndarray]]) -> None:
    """Read every layer that is visible, bundle by bundle: each has to be whole."""
    if not (root / "zarr.json").exists():
        return
    store = FeatureStore.open(root, check="always")
    for key in store.keys():
        for bundle in store.catalog.bundles.values():
            for layer in key.bundles.find(bundle)[1]:
                labels, _ = row_labels(bundle, store.catalog.views(bundle))
                tokens = layer_group(store, key, bundle, layer, "f16").read("tokens", range(len(bundle)))
                for view, values in zip(labels, tokens, strict=True):
                    np.testing.assert_array_equal(values, expected[layer][view])


def as_stored(store: Store) -> dict[str, dict[str, np.ndarray]]:
    """By layer and view, its tokens."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for layer in ("block0", "norm"):
        grids = FeatureStore.open(store.root).select("colour", layers=[layer]).load()
        found[layer] = {v: t for grid in grids for v, t in zip(grid.views, grid.tokens[layer], strict=True)}
    return found


@contextmanager
def beside(works: dict[str, Callable[[], object]]) -> Iterator[None]:
    """Processes that do their work over and over while the block runs, and once more when it has ended."""
    reader, writer = os.pipe()

    def again(work: Callable[[], object]) -> None:
        os.close(writer)
        last = False
        while not last:
            last = bool(select.select([reader], [], [], ROUND_S)[0])
            work()

    pids = {name: fork(lambda w=work: again(w)) for name, work in works.items()}
    try:
        yield
    finally:
        os.close(writer)
        codes = {name: ended(pid) for name, pid in pids.items()}
        os.close(reader)
    assert not any(codes.values()), codes


def main(folder: Path, kills: int, moments: int) -> dict:
    """Kill extractions at `kills` steps and at `moments` random times, and let each be continued.

    All the while a reader reads what is visible, and plans and gc are made of the same store.
    """
    os.fsync = lambda handle: None  # what the kernel has survives a kill, and disks are slow
    _pack(folder)
    whole, start = Store(folder, "whole.zarr"), time.monotonic()
    whole.extract()
    lasts_s, expected, truth = time.monotonic() - start, whole.files(), as_stored(whole)
    steps, rng, now = steps_of(folder), random.Random(11), folder / "now"
    places = [1 + round(k * (steps - 1) / max(1, kills - 1)) for k in range(kills)]
    found = {"steps": steps, "killed": 0, "differing": []}
    works = {
        "reader": lambda store: read_whole_layers(store.root, truth),
        "plan": Store.plan,
        "gc": Store.collect,
    }
    now.symlink_to("0.zarr")
    with beside({name: lambda w=work: _on(now, w) for name, work in works.items()}):
        for number, place in enumerate([*places, *[None] * moments]):
            store = Store(folder, f"{number}.zarr")
            _point(now, store.root)
            found["killed"] += killed(store, place, rng, lasts_s)
            read_whole_layers(store.root, truth)
            code, files = ended(fork(store.extract)), store.files()
            if code or files != expected:
                names = sorted(n for n in expected.keys() | files if expected.get(n) != files.get(n))
                found["differing"].append([place, code, names])
    return found


def _pack(folder: Path) -> None:
    """Five landscape views in two scenes and two portrait ones: two bundles, a unit that is not full."""
    source = shared.Scenes()
    for name, views, size in (("a", 3, (24, 16)), ("b", 2, (24, 16)), ("c", 2, (16, 24))):
        source.scenes[f"toy/{name}"] = shared.toy_scene(f"toy/{name}", views, 0, [size] * views)
    pack_scenes(source, folder / "shards", shard_bytes=1 << 30)


def _on(now: Path, work: Callable[[Store], object]) -> None:
    """Work on the store that is written now, once there is one."""
    store = Store(now.parent, os.readlink(now))
    if (store.root / "zarr.json").exists():
        work(store)


def _point(now: Path, root: Path) -> None:
    now.with_suffix(".new").symlink_to(root.name)
    os.replace(now.with_suffix(".new"), now)


def killed(store: Store, place: int | None, rng: random.Random, lasts_s: float) -> bool:
    """Extract and die, at a step or at any moment; whether that was before the end."""
    if place is not None:
        after = rng.random() < 0.5
        return ended(fork(lambda: (Steps(place, after).install(), store.extract()))) == -signal.SIGKILL
    pid = fork(store.extract)
    time.sleep(rng.random() * lasts_s)
    os.kill(pid, signal.SIGKILL)
    return ended(pid) == -signal.SIGKILL


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
