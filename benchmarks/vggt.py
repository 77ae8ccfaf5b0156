"""VGGT's memory and time by number of views, against runs of the same model that keep more.

On a processor, a model of middle size; every run is a process of its own, which tells its peak:

- ours: layers that the heads read are kept, heads take 8 views at a time;
- every layer: all layers are kept until the end, heads take 8 views at a time;
- everything: all layers are kept until the end, heads take all views at once.

What counts is what a view adds: the slope of the peak from `FEW` to the most views. `--check` exits 1
when a view of `everything` adds less than `GOAL` times what one of ours adds, or a view of `every layer`
less than `LAYERS_GOAL` times. Weights are random and change neither.

Where there is a GPU, `--device cuda` runs the released configuration in bfloat16 at 336 x 518 pixels and
prints seconds and gigabytes of the aggregator beside those that its authors gave for an H100, which kept
all 24 layers. These are not judged: the machines differ.

Shapes: B scenes, V views, H W pixels.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import Any

import torch
from pipeline import MIB, peak_bytes
from strata.extract.encoders.vggt.model import VGGT

FEW, VIEWS = 8, (1, 2, 4, 8, 16, 24)
GOAL, LAYERS_GOAL = 4.0, 1.3
SIDE = 224
MIDDLE = {
    "img_size": SIDE,
    "embed_dim": 384,
    "depth": 12,
    "num_heads": 6,
    "encoder": {"type": "dinov2", "depth": 4, "num_heads": 6},
    "camera_head": {"trunk_depth": 2, "num_heads": 6},
    "dpt": {"features": 64, "out_channels": [48, 96, 192, 192]},
    "track_head": None,
    "seed": 0,
}
KINDS = ("ours", "every layer", "everything")
# Frames: (seconds, gigabytes) of the aggregator alone, H100 with FlashAttention 3, all layers kept.
PUBLISHED = {
    1: (0.04, 1.88),
    2: (0.05, 2.07),
    4: (0.07, 2.45),
    8: (0.11, 3.23),
    10: (0.14, 3.63),
    20: (0.31, 5.58),
    50: (1.04, 11.41),
    100: (3.12, 21.15),
    200: (8.75, 40.63),
}
GPU_SIZE = (336, 518)


def keep_every_layer(model: VGGT) -> None:
    """From now on the model's layers live as long as it does."""
    aggregate, depth = model.aggregator.forward, len(model.aggregator.frame_blocks)
    held: list[dict[int, torch.Tensor]] = []

    def forward(tokens: torch.Tensor, grid: tuple[int, int], keep: Any) -> dict[int, torch.Tensor]:
        held.append(aggregate(tokens, grid, range(depth)))
        return {layer: held[-1][layer] for layer in keep}

    model.aggregator.forward = forward


def one_run(kind: str, views: int) -> tuple[int, int, float]:
    """(bytes before, bytes at most, seconds) of this process, which makes one forward pass."""
    torch.set_num_threads(1)
    frames = views if kind == "everything" else 8
    model = VGGT.from_config({**MIDDLE, "head_frames": frames}).eval()
    if kind != "ours":
        keep_every_layer(model)
    images = torch.rand(1, views, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before, start_s = peak_bytes(), time.process_time()
        model(images)
        return before, peak_bytes(), time.process_time() - start_s


def by_views(kind: str) -> dict[int, tuple[int, float]]:
    """Bytes that the forward pass adds at most, and its CPU seconds, by number of views."""
    measured = {}
    for views in VIEWS:
        command = [sys.executable, __file__, "--one", kind, "--views", str(views)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        measured[views] = int(said[1]) - int(said[0]), float(said[2])
        added, seconds = measured[views]
        print(f"{kind:<12}{views:>3} views: {added / MIB:7,.0f} MiB, {seconds:6.2f} CPU s", flush=True)
    return measured


def slope(measured: dict[int, tuple[int, float]]) -> float:
    """Bytes that a view adds beyond `FEW`."""
    return (measured[VIEWS[-1]][0] - measured[FEW][0]) / (VIEWS[-1] - FEW)


def memory() -> bool:
    """Print peaks and slopes; whether the goals are reached."""
    slopes = {kind: slope(by_views(kind)) for kind in KINDS}
    reached = True
    for kind, goal in (("every layer", LAYERS_GOAL), ("everything", GOAL)):
        ratio = slopes[kind] / slopes["ours"]
        reached &= ratio >= goal
        print(
            f"a view adds {slopes[kind] / MIB:,.1f} MiB with {kind}, {slopes['ours'] / MIB:,.1f} MiB of ours:"
            f" {ratio:.2f}, goal at least {goal}: {'reached' if ratio >= goal else 'MISSED'}"
        )
    return reached


def published(device: str) -> None:
    """Print seconds and gigabytes of the aggregator beside the published ones."""
    model = VGGT.from_config({"seed": 0, "track_head": None}).to(device).eval()
    print(f"{torch.cuda.get_device_name(device)}, bfloat16, {GPU_SIZE[0]} x {GPU_SIZE[1]} pixels, aggregator")
    for views, (their_s, their_gb) in PUBLISHED.items():
        images = torch.rand(1, views, 3, *GPU_SIZE, device=device)
        for _ in range(2):  # the first time warms up
            torch.cuda.reset_peak_memory_stats(device)
            torch.cuda.synchronize(device)
            start_s = time.perf_counter()
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
                model.aggregate(images, model.config.dpt_layers)
            torch.cuda.synchronize(device)
            seconds = time.perf_counter() - start_s
        gb = torch.cuda.max_memory_allocated(device) / 1e9
        print(f"{views:>4} views: {seconds:6.2f} s (H100: {their_s:5.2f}), {gb:6.2f} GB ({their_gb:5.2f})")


def main() -> int:
    parser = argparse.ArgumentParser(description="VGGT's memory by number of views.")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    parser.add_argument("--device", default="cpu", help="cuda: beside the published numbers")
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--views", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(*one_run(options.one, options.views))
        return 0
    if options.device != "cpu":
        published(options.device)
        return 0
    return 0 if memory() or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
