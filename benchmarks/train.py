"""Training from stored tokens against training online, and against loading in the step.

    python benchmarks/train.py [--check] [--pairs 7] [--steps 2] [--grid 16] [--device cpu]

A VGGT of three pairs of blocks behind a frozen encoder (DINOv2's ViT-S, random weights) is trained on packed
synthetic rooms of 640 x 480 by the task of the command. The three ways take turns and do the same steps on
the same view sets.

Store: tokens, depth and cameras from the store. Online: images decoded ahead on threads, the encoder in the
step. The bound is what leaving out the encoder can give at most: t_online / (t_online - t_encoder), with
t_encoder the seconds of the encoder on a step's images. Printed is the speed-up over the bound.

Plain: online, but each batch is read when the step asks for it. Printed is its time over ours.

Compute busy: the share of the step that does not wait for data, of store and online.

On a CPU the speed-up and its bound are of CPU seconds, those of reading threads included, which other work on
the machine changes little; on a GPU, of wall clock, as are the two other numbers everywhere. `--check` exits
1 when the median speed-up is below 0.9 of the bound, or compute is busy for less than 95 %.

A turn is 3 (steps + 1) steps of about 3 s on one core, which makes some four minutes; each is told when it is
over.
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from judge import Row, median_interval
from rich.console import Console
from strata.configs.schema import ExtractConfig, PackConfig, SetsConfig, SynthConfig, TrainVGGTConfig
from strata.extract.pack import pack
from strata.extract.run import run as extract
from strata.extract.scenes.synth_command import synth
from strata.extract.sets_command import make
from strata.train.batch import Batch, to_device
from strata.train.distributed import Shard
from strata.train.step import Stepper
from strata.train.vggt import VGGTTask
from strata.train.vggt_command import make_task

ENCODER, WEIGHTS = "vit_small_patch14_dinov2", "random:0"
PATCH, WIDTH, HEIGHT, SETS, VIEWS = 14, 640, 480, 2, 4
GOALS = {"speed-up over bound": 0.9, "busy (store)": 0.95, "busy (online)": 0.95}
SIZES = """
embed_dim: 192
depth: 3
num_heads: 6
mlp_ratio: 2.0
camera_head: {trunk_depth: 2, num_heads: 6}
dpt: {features: 32, out_channels: [32, 32, 64, 64]}
"""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Seconds of a step, of those that judge and of wall clock, and the share that waited for data."""

    step_s: float
    wall_s: float
    wait_share: float


class Way:
    """One way to train, with a model of its own."""

    def __init__(self, config: TrainVGGTConfig, ahead: bool) -> None:
        self.task, self.model = make_task(config, Console(quiet=True))
        self.device, self._ahead = torch.device(config.device), ahead
        self.model.to(self.device).train()
        precision = "bfloat16" if self.device.type == "cuda" else "float32"
        self._seconds = time.process_time if self.device.type == "cpu" else time.perf_counter
        self._stepper = Stepper(self.task, config, precision=precision, device=self.device, shard=Shard())

    def steps(self, count: int) -> Timed:
        """The mean of `count` steps, after one that fills what is read ahead."""
        batches = self.task.batches(0, 0, Shard()) if self._ahead else in_the_step(self.task)
        self._stepper.step(next(batches), 1e-5)
        start, judged, waited = time.perf_counter(), self._seconds(), 0.0
        for _ in range(count):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            self._stepper.step(batch, 1e-5)
        whole, judged = time.perf_counter() - start, self._seconds() - judged
        getattr(batches, "close", lambda: None)()
        return Timed(step_s=judged / count, wall_s=whole / count, wait_share=waited / whole)

    def encoder_s(self) -> float:
        """Seconds of the encoder on the images of a step."""
        batches = self.task.batches(0, 0, Shard())
        images = to_device(next(batches), self.device)["images"].float() / 255
        batches.close()
        start = self._seconds()
        with torch.no_grad(), self._stepper.autocast():
            self.model.aggregator.encode(images)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return self._seconds() - start


def in_the_step(task: VGGTTask) -> Iterator[Batch]:
    """The same batches, each read when it is asked for."""
    for number in itertools.count():
        jobs = task.train.reads(0, number, Shard())
        yield task.train.joined([job() for job in next(jobs)])


def prepare(folder: Path, grid: int, device: str) -> Callable[..., TrainVGGTConfig]:
    """Rooms, sets, shards and tokens in `folder`; returns what makes the options of a way."""
    quiet, size = Console(file=io.StringIO()), [grid * 3 // 4 * PATCH, grid * PATCH]
    scenes, shards, sets = (str(folder / name) for name in ("scenes", "shards", "sets.json"))
    synth(SynthConfig(out=scenes, scenes=3, views=8, width=WIDTH, height=HEIGHT), quiet)
    make(SetsConfig(scenes=scenes, out=sets, set_views=VIEWS, set_count=16), quiet)
    pack(PackConfig(scenes=scenes, out=shards), quiet)
    store = str(folder / "f.zarr")
    extract(
        ExtractConfig(
            shards=shards,
            store=store,
            sets=sets,
            layers=["last"],
            pixels=size,
            orient="scene",
            device=device,
            encoder=ENCODER,
            weights=WEIGHTS,
        ),
        quiet,
    )
    (folder / "sizes.yaml").write_text(SIZES)
    return partial(
        TrainVGGTConfig,
        out=str(folder / "run"),
        model=str(folder / "sizes.yaml"),
        scenes=shards,
        store=store,
        sets=sets,
        scene="*",
        pixels=size,
        augment="none",
        views=[VIEWS, VIEWS],
        max_images=SETS * VIEWS,
        device=device,
        encoder=ENCODER,
        weights=WEIGHTS,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--grid", type=int, default=16, help="tokens along the long side")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        config = prepare(Path(name), args.grid, args.device)
        ways = {
            "store": Way(config(source="store"), ahead=True),
            "online": Way(config(), ahead=True),
            "plain": Way(config(), ahead=False),
        }
        turns = list(taken(ways, args.steps, args.pairs))
    rows = [judged(name, [turn[name] for turn in turns]) for name in turns[0]]
    print(*rows, sep="\n")
    return 0 if all(row.reached for row in rows) or not args.check else 1


def taken(ways: dict[str, Way], steps: int, pairs: int) -> Iterator[dict[str, float]]:
    """The turns that count, each told when it is over; one more comes first and warms up."""
    for turn in range(pairs + 1):
        found = measured(ways, steps, turn)
        told = ", ".join(f"{name} {found[name]:.3f}" for name in GOALS) if turn else "warm"
        print(f"turn {turn} of {pairs}: {told}", flush=True)
        if turn:
            yield found


def measured(ways: dict[str, Way], steps: int, turn: int) -> dict[str, float]:
    """One turn of all ways, the order turning round each time."""
    order = list(ways)[:: 1 if turn % 2 else -1]
    found = {name: ways[name].steps(steps) for name in order}
    encoder_s = ways["online"].encoder_s()
    online_s = found["online"].step_s
    bound = online_s / max(online_s - encoder_s, 1e-9)
    return {
        **{f"{name} s": timed.step_s for name, timed in found.items()},
        "encoder s": encoder_s,
        "speed-up": online_s / found["store"].step_s,
        "bound": bound,
        "speed-up over bound": online_s / found["store"].step_s / bound,
        "plain over online": found["plain"].wall_s / found["online"].wall_s,
        "busy (store)": 1 - found["store"].wait_share,
        "busy (online)": 1 - found["online"].wait_share,
    }


def judged(name: str, values: list[float]) -> Row:
    """The row of one number."""
    value, low, high = median_interval(values)
    unit = "s" if name.endswith(" s") else ""
    return Row(name=name, value=value, low=low, high=high, unit=unit, goal=GOALS.get(name))


if __name__ == "__main__":
    sys.exit(main())
