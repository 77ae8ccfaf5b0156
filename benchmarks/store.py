"""The store against raw file operations on the same bytes and file system.

    python benchmarks/store.py [--check] [--pairs 15] [--width 384 1024] [--only PART]

Parts: arrays, writes (of arrays), catalog, u8, engines.

Arrays: four layers of [32, 37, 37, D] f16 in one bundle, checksums `first`, against one plain file a layer.
Both read into memory of the caller that is used again and again. The store is opened once, and everything was
read once before it is timed; `first touch` opens it anew, and then checksums are verified. The two take
turns; a ratio is raw seconds over ours. Wall time judges, or CPU seconds of all threads where the wall
ratio is within 30 % of the goal and neither waits for a disk. Cold: the files are dropped from the page
cache, the store is opened anew, and all touched maps are verified.

The loader's row feeds batches of 8 maps of random views and layers into one buffer: what feeds a trainer, by
`Block.read`; raw preads the same maps.

Catalog: `store_catalog.py`. u8: `store_u8.py`. Engines, printed only: `store_engines.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import store_catalog
import store_engines
import store_u8
from judge import Row, Seconds, alternate, median_interval, seconds
from store_case import GRID, LAYERS, VIEWS, Case
from strata.store import disk_hints
from strata.store.page_memory import page_empty

WIDTHS, NOISE, BATCH, LEAST_S = (384, 1024), 0.3, 8, 0.1
Work = Callable[[], object]
Timed = tuple[Seconds, Seconds]


def arrays(case: Case, pairs: int) -> Iterator[Row]:
    """Rows of one width."""
    reading = Reading(case)
    yield from writing(case, pairs)
    for name, ours, raw in reading.pairs():
        yield row(case, name, ours, raw, pairs, goal=0.9)
    yield row(case, "the bundle in order, first touch", reading.first_touch, reading.raw_in_order, pairs)
    gathering = Gathering(case)
    yield row(case, "gather 1,024 tokens, warm", gathering.ours, gathering.raw, pairs, goal=0.8)
    yield row(case, "gather, opened anew, pages cached", gathering.ours_anew, gathering.raw_anew, pairs)
    batches = reading.ours_batches, reading.raw_batches
    yield row(case, f"batches of {BATCH} random maps", *batches, pairs, goal=0.8)
    yield two_threads(case, reading, pairs)
    gathering.close()
    reading.close()
    cold = [partial(from_disk, case, work) for work in (gathering.ours_anew, gathering.raw_anew)]
    yield judged(case, "gather 1,024 tokens, cold", alternate(cold[0], cold[1], pairs), goal=0.2, waits=True)


def writing(case: Case, pairs: int) -> Iterator[Row]:
    def timed(write: Callable[[Path], None]) -> Seconds:
        case.forget_written()
        os.sync()
        return seconds(lambda: write(case.folder / "written"))

    ours, raw, npy = (partial(timed, work) for work in (case.write_bundle, case.write_raw, case.write_npy))
    yield judged(case, "write a bundle", alternate(ours, raw, pairs), goal=0.9, waits=True)
    with patch.object(os, "fsync", nothing), patch.object(disk_hints, "_sync_file_range", None):
        yield judged(case, "the same without fsync, np.save", alternate(ours, npy, pairs), goal=0.9)
    case.forget_written()


def nothing(handle: int) -> None:
    """In place of an fsync."""


class Reading:
    """Reads of whole maps, each with its raw peer."""

    def __init__(self, case: Case) -> None:
        self.case, self.block = case, case.block()
        self.out = page_empty((len(LAYERS), *case.shape), np.float16)
        self.files = {layer: os.open(case.raw(layer), os.O_RDONLY) for layer in LAYERS}
        self.map_bytes = case.nbytes // VIEWS
        draw = np.random.default_rng(1)
        self.random = [(int(draw.integers(VIEWS)), LAYERS[draw.integers(4)]) for _ in range(2 * BATCH)]
        self.batch = page_empty((BATCH, *GRID, case.width), np.float16)
        self.maps = page_empty((len(self.random), *GRID, case.width), np.float16)
        self.first_touch()
        self.ours_in_order()
        for layer, values in zip(LAYERS, self.out, strict=True):
            assert np.array_equal(values, case.values[layer])

    def pairs(self) -> list[tuple[str, Work, Work]]:
        """(name, ours, raw)."""
        return [
            ("the bundle in order", self.ours_in_order, self.raw_in_order),
            ("16 single (view, layer) maps", self.ours_maps, self.raw_maps),
            ("one layer of all views", self.ours_layer, self.raw_layer),
        ]

    def ours_in_order(self) -> None:
        for layer, out in zip(LAYERS, self.out, strict=True):
            self.block.tokens(layer, out=out)

    def raw_in_order(self) -> None:
        for layer, out in zip(LAYERS, self.out, strict=True):
            os.preadv(self.files[layer], [out], 0)

    def first_touch(self) -> None:
        block = self.case.block()
        for layer, out in zip(LAYERS, self.out, strict=True):
            block.tokens(layer, out=out)

    def ours_layer(self) -> None:
        self.block.tokens(LAYERS[1], out=self.out[1])

    def raw_layer(self) -> None:
        os.preadv(self.files[LAYERS[1]], [self.out[1]], 0)

    def ours_maps(self) -> None:
        for k, (view, layer) in enumerate(self.random):
            self.block.read("tokens", [view], layer=layer, out=self.maps[k, None])

    def raw_maps(self) -> None:
        for k, (view, layer) in enumerate(self.random):
            os.preadv(self.files[layer], [self.maps[k]], view * self.map_bytes)

    def ours_batches(self) -> None:
        for k, (view, layer) in enumerate(self.random):
            self.block.read("tokens", [view], layer=layer, out=self.batch[k % BATCH, None])

    def raw_batches(self) -> None:
        for k, (view, layer) in enumerate(self.random):
            os.preadv(self.files[layer], [self.batch[k % BATCH]], view * self.map_bytes)

    def close(self) -> None:
        del self.block
        for handle in self.files.values():
            os.close(handle)

    def ours_half(self, half: int) -> None:
        for layer, out in zip(LAYERS[2 * half : 2 * half + 2], self.out[2 * half :], strict=False):
            self.block.tokens(layer, out=out)

    def raw_half(self, half: int) -> None:
        for layer, out in zip(LAYERS[2 * half : 2 * half + 2], self.out[2 * half :], strict=False):
            os.preadv(self.files[layer], [out], 0)


class Gathering:
    """1,024 random tokens of one layer, of the store and of np.memmap."""

    def __init__(self, case: Case) -> None:
        self.case, self.block = case, case.block()
        draw = np.random.default_rng(2)
        self.at = tuple(draw.integers(0, size, 1024) for size in case.shape[:3])
        self.map = self._memmap()
        assert np.array_equal(self.ours(), self.raw())

    def _memmap(self) -> np.memmap:
        return np.memmap(self.case.raw(LAYERS[1]), np.float16, "r", shape=self.case.shape)

    def close(self) -> None:
        """Let go of what is mapped: mapped pages are not dropped."""
        del self.block, self.map

    def ours(self) -> np.ndarray:
        return self.block.gather(LAYERS[1], *self.at)

    def raw(self) -> np.ndarray:
        return self.map[self.at]

    def ours_anew(self) -> np.ndarray:
        return self.case.block().gather(LAYERS[1], *self.at)

    def raw_anew(self) -> np.ndarray:
        return self._memmap()[self.at]


def from_disk(case: Case, work: Work) -> Seconds:
    case.forget_pages()
    return seconds(work)


def two_threads(case: Case, reading: Reading, pairs: int) -> Row:
    times = max(1, round(LEAST_S / seconds(reading.raw_in_order)[0]))

    def both(half: Callable[[int], None], together: bool) -> None:
        work = [threading.Thread(target=lambda k=k: [half(k) for _ in range(times)]) for k in range(2)]
        for thread in work:
            thread.start()
            if not together:
                thread.join()
        for thread in work:
            thread.join()

    def speed_up(half: Callable[[int], None]) -> tuple[float, float, float]:
        work = [partial(seconds, partial(both, half, together)) for together in (True, False)]
        return median_interval([one[0] / two[0] for two, one in alternate(work[0], work[1], pairs)])

    work = (reading.ours_half, reading.raw_half, hashed)
    ours, raw, processors = (speed_up(half) for half in work)
    name = f"D = {case.width:,}: two reading threads against one"
    note = f"raw preads {raw[0]:.2f}, what needs no memory {processors[0]:.2f}"
    return Row(name=name, value=ours[0], low=ours[1], high=ours[2], unit="x wall", goal=1.6, note=note)


def hashed(half: int) -> None:
    """Work of two threads that share nothing but the processors."""
    for _ in range(8):
        hashlib.sha256(bytes(1024**2))


def row(case: Case, name: str, ours: Work, raw: Work, pairs: int, goal: float | None = None) -> Row:
    # Short spans say little on a virtual machine whose processor is lent to others in between.
    times = max(1, round(LEAST_S / max(1e-6, min(seconds(raw)[0] for _ in range(3)))))

    def repeated(work: Work) -> Seconds:
        wall, cpu = seconds(lambda: [work() for _ in range(times)])
        return wall / times, cpu / times

    return judged(case, name, alternate(partial(repeated, ours), partial(repeated, raw), pairs), goal)


def judged(
    case: Case,
    name: str,
    timed: list[tuple[Seconds, Seconds]],
    goal: float | None = None,
    waits: bool = False,
) -> Row:
    """Raw seconds over ours: wall, or CPU near the goal unless the work waits for a disk."""
    wall, cpu = (median_interval([raw[kind] / own[kind] for own, raw in timed]) for kind in (0, 1))
    near = not waits and abs(wall[0] / (goal or 1) - 1) <= NOISE
    (value, low, high), unit, other = (cpu, "CPU", wall) if near else (wall, "wall", cpu)
    ms = 1e3 * median_interval([own[0] for own, _ in timed])[0]
    return Row(
        name=f"D = {case.width:,}: {name}",
        value=value,
        low=low,
        high=high,
        unit=f"of raw in {unit} seconds",
        goal=goal,
        note=f"{'wall' if near else 'CPU'} {other[0]:.2f}, ours {ms:,.2f} ms",
    )


def told(rows: Iterator[Row] | list[Row]) -> bool:
    """Print rows as they come; whether all goals are reached."""
    reached = True
    for one in rows:
        print(one, flush=True)
        reached &= one.reached
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description="The store against raw files.")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    parser.add_argument("--pairs", type=int, default=15, help="pairs of timings for each ratio")
    parser.add_argument("--width", type=int, nargs="+", default=WIDTHS, help="channels")
    parser.add_argument("--only", choices=("arrays", "writes", "catalog", "u8", "engines"), help="one part")
    parser.add_argument("--tmp", default=None, help="folder on the file system that is measured")
    options = parser.parse_args()
    reached = True
    for width in options.width if options.only in (None, "arrays", "writes", "engines") else ():
        with tempfile.TemporaryDirectory(dir=options.tmp) as folder:
            case = Case(folder=Path(folder), width=width).prepare()
            if options.only == "writes":
                reached &= told(writing(case, options.pairs))
            elif options.only != "engines":
                reached &= told(arrays(case, options.pairs))
            if options.only in (None, "engines"):
                told(store_engines.measure(case, max(3, options.pairs // 3)))
    if options.only in (None, "catalog"):
        reached &= told(store_catalog.measure(options.pairs))
    if options.only in (None, "u8"):
        reached &= told(store_u8.measure())
    return 0 if reached or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
