"""Extraction against the bare forward pass of the same model, and its memory against the number of scenes.

    python benchmarks/pipeline.py [--check] [--views 16] [--pairs 15] [--grid 37] [--threads 1]

Speed: ours is `extract` as the command runs it, on packed synthetic views of 640 x 480 with depth: plan,
decode, place, token points, forward, cast of four layers, compress, write and commit tokens, pixels,
depth and points. The peer calls the same encoder with the same layers on the same batches, which lie
preprocessed in memory (recorded in a first extraction). Both on the CPU in float32, with the same number
of torch threads; one thread, because threads that wait for each other burn CPU time when the machine is
busy. The two take turns. A ratio is the peer's seconds over ours; printed are the median ratio and its
95 % interval. CPU seconds of all threads judge: they also count what runs beside the forward pass on
another core. One more extraction tells where they go: CPU seconds by stage, of the threads that did it.

Memory: a process of its own extracts N scenes with a small encoder, another one 8 N; the peer is the
former. Units hold 16 views, so that both fill several: a unit is what is kept until it can be written.

`--check` exits 1 when the median ratio of CPU seconds is below 0.95, or 8 N scenes have a peak of more
than 1.15 times that of N.

Shapes: B views of a batch, H W pixels.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from judge import alternate, median_interval, seconds
from strata.configs.schema import ExtractConfig
from strata.extract import bundle_pass, extraction, forward, run
from strata.extract.encoders.base import Encoder, FeatureMap, ViewBatch
from strata.extract.encoders.registry import create
from strata.extract.pack import pack_scenes
from strata.extract.run import Summary, extract
from strata.extract.scenes.scene import Scene, SceneSource
from strata.extract.scenes.synthetic import SyntheticSource
from strata.store.writer import GroupWriter, UnitBuffer

ENCODER, SMALL_ENCODER, WEIGHTS = "vit_small_patch14_dinov2", "vit_tiny_demo", "random:0"
LAYERS = ["1/4", "1/2", "3/4", "last"]
WIDTH, HEIGHT, BATCH = 640, 480, 8
SPEED_GOAL, MEMORY_GOAL = 0.95, 1.15
SCENES, SCENE_VIEWS, TIMES, UNIT_VIEWS = 8, 8, 8, 16
MIB = 1024**2

# What runs beside the forward pass: (where it is looked up, name).
STAGES: dict[str, tuple[Any, str]] = {
    "plan": (run, "open_plan"),
    "decode, place, points": (bundle_pass, "prepare"),
    "batch": (forward, "batch_of"),
    "cast": (bundle_pass, "stored_arrays"),
    "compress, checksums": (UnitBuffer, "add"),
    "write": (GroupWriter, "write"),
    "commit": (extraction, "commit_bundle"),
}


@dataclass
class Recorder(Encoder):
    """An encoder that keeps the batches that it was given."""

    encoder: Encoder
    batches: list[tuple[ViewBatch, tuple[str, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.info = self.encoder.info

    def width(self, layer: str) -> int:
        return self.encoder.width(layer)

    def layers(self) -> tuple[str, ...]:
        return self.encoder.layers()

    def prefix_names(self) -> tuple[str, ...]:
        return self.encoder.prefix_names()

    def forward(self, batch: ViewBatch, layers: tuple[str, ...]) -> dict[str, FeatureMap]:
        self.batches.append((batch, layers))
        return self.encoder.forward(batch, layers)

    def weights_digest(self) -> str:
        return self.encoder.weights_digest()

    def to(self, device: str | torch.device, dtype: torch.dtype) -> Recorder:
        self.encoder.to(device, dtype)
        return self

    def replay(self) -> None:
        """The bare forward passes."""
        with torch.inference_mode():
            for batch, layers in self.batches:
                self.encoder.forward(batch, layers)


@dataclass
class Repeated(SceneSource):
    """One synthetic room under many ids."""

    scenes: int
    views: int

    def ids(self) -> list[str]:
        return [f"repeated/room_{index:04d}" for index in range(self.scenes)]

    def scene(self, scene_id: str) -> Scene:
        return replace(self._room(), id=scene_id)

    def splits(self) -> dict[str, tuple[str, ...]]:
        return {}

    def __post_init__(self) -> None:
        self._room = cache(lambda: SyntheticSource(1, self.views, WIDTH, HEIGHT).scene("synthetic/room_0"))


def extracted(folder: Path, encoder: Encoder, grid: int, **options: Any) -> Summary:
    """One extraction of the shards in `folder` into a new store, which is removed."""
    store = folder / "features.zarr"
    config = ExtractConfig(
        shards=str(folder / "shards"),
        store=str(store),
        encoder=encoder.info.name,
        weights=WEIGHTS,
        layers=LAYERS,
        grid=f"aspect:{grid}",
        storage="f16",
        device="cpu",
        batch=BATCH,
        **options,
    )
    try:
        return extract(config, encoder=encoder)
    finally:
        shutil.rmtree(store)


def by_stage(work: Callable[[], Any]) -> dict[str, float]:
    """CPU seconds of the stages beside the forward pass, of the threads that did them."""
    spent: dict[str, float] = defaultdict(float)

    def timed(stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            start = time.thread_time()
            try:
                return call(*args, **options)
            finally:
                spent[stage] += time.thread_time() - start

        return wrapped

    with ExitStack() as stack:
        for stage, (where, name) in STAGES.items():
            stack.enter_context(patch.object(where, name, timed(stage, getattr(where, name))))
        work()
    return spent


def speed(folder: Path, views: int, pairs: int, grid: int) -> bool:
    """Print the ratios; whether the goal is reached."""
    pack_scenes(Repeated(1, views), folder / "shards", shard_bytes=1 << 30)
    encoder = create(ENCODER, WEIGHTS)
    recorder = Recorder(encoder)
    summary = extracted(folder, recorder, grid)
    tokens = recorder.batches[0][0].grid
    print(
        f"{ENCODER}, {len(recorder.batches[0][1])} layers of {tokens[0]} x {tokens[1]} tokens, float32, "
        f"{torch.get_num_threads()} torch threads, {views} views, {summary.bytes / 1e6 / views:.1f} MB a view"
    )

    def ours() -> object:
        return extracted(folder, encoder, grid)

    timed = alternate(lambda: seconds(ours), lambda: seconds(recorder.replay), pairs)
    medians = []
    for kind, name in enumerate(("wall", "CPU")):
        median, low, high = median_interval([peer[kind] / own[kind] for own, peer in timed])
        own_s, peer_s = (statistics.median(pair[side][kind] for pair in timed) for side in (0, 1))
        medians.append(median)
        print(
            f"{name:>4}: {median:.3f} of the bare forward (95 % interval {low:.3f} to {high:.3f}); "
            f"{own_s / views:.3f} s a view against {peer_s / views:.3f} s, {views / own_s:.2f} images/s"
        )
    _print_stages(ours, statistics.median(peer[1] for _, peer in timed), views)
    reached = medians[1] >= SPEED_GOAL
    print(f"goal at least {SPEED_GOAL} in CPU seconds: {'reached' if reached else 'MISSED'}")
    return reached


def _print_stages(ours: Callable[[], Any], forward_s: float, views: int) -> None:
    tallies: list[Any] = []
    spent = by_stage(lambda: tallies.append(ours().tally))
    print("CPU beside the forward pass, a view:")
    for stage, cpu_s in [*spent.items(), ("together", sum(spent.values()))]:
        print(f"  {stage:<22}{1e3 * cpu_s / views:7.2f} ms  {cpu_s / forward_s:6.2%} of the forward")
    print(f"  the forward waited {1e3 * tallies[0].wait_s / views:.2f} ms (wall)")


def peak_of(folder: Path) -> tuple[int, int]:
    """(before, at most) bytes of this process, which extracts the shards in `folder`."""
    torch.set_num_threads(1)
    encoder = create(SMALL_ENCODER, WEIGHTS)
    before = peak_bytes()
    extracted(folder, encoder, 37, unit_views=UNIT_VIEWS)
    return before, peak_bytes()


def peak_bytes() -> int:
    """Largest resident size of this process so far.

    From Linux's own line: what getrusage tells includes the process that started this one.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "the kernel tells no VmHWM"
    return 1024 * int(found[1])


def memory(folder: Path) -> bool:
    """Print peaks; whether the goal is reached."""
    peaks = []
    for scenes in (SCENES, SCENES * TIMES):
        inside = folder / f"{scenes}_scenes"
        pack_scenes(Repeated(scenes, SCENE_VIEWS), inside / "shards", shard_bytes=1 << 30)
        command = [sys.executable, __file__, "--peak-of", str(inside)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        before, peak = map(int, said.split())
        peaks.append(peak)
        print(
            f"{scenes:>3} scenes, {scenes * SCENE_VIEWS:>4} views: peak {peak / MIB:,.0f} MiB, "
            f"{(peak - before) / MIB:,.0f} of them by the extraction"
        )
    ratio = peaks[1] / peaks[0]
    reached = ratio <= MEMORY_GOAL
    print(
        f"peak of {TIMES} times the scenes: {ratio:.3f}, goal at most {MEMORY_GOAL}: "
        f"{'reached' if reached else 'MISSED'}"
    )
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description="Extraction against the bare forward pass.")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    parser.add_argument("--views", type=int, default=16, help="views of a timed extraction")
    parser.add_argument("--pairs", type=int, default=15, help="pairs of timings")
    parser.add_argument("--grid", type=int, default=37, help="tokens of the longer side")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--only", choices=("speed", "memory"), help="one part")
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        print(*peak_of(options.peak_of))
        return 0
    torch.set_num_threads(options.threads)
    reached = True
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "memory":
            reached &= speed(Path(folder), options.views, options.pairs, options.grid)
        if options.only != "speed":
            reached &= memory(Path(folder))
    return 0 if reached or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
