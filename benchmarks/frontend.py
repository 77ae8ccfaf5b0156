"""Packing and decoding against plain tarfile and Pillow, and many small scenes against few large ones.

    python benchmarks/frontend.py [--check] [--images 48] [--views 4000] [--pairs 5] [--only tar|scenes]

Tar: ours packs a folder of JPEG and PNG images of 640 x 480 (`pack_scenes`: decode, digest, write, sync)
and then reads every view through the index, verified and decoded. The peer does with `tarfile` and Pillow
what a script would: decode every image once to see that it is whole, add the files to a tar, sync it; then
read every member of the tar and decode it.

Scenes: N views of a synthetic room lie in N / 2 scenes of 2, and in 10 scenes of N / 10; both are packed
and extracted with a tiny encoder. `--views 100000` is the size that the claims are about. The files of
the store of the many scenes are counted, once with four layers and all views, once with one layer and
views=geometry.

The two take turns. A ratio is the peer's seconds over ours: of wall time, or, where wall times differ by
less than 30 %, of CPU seconds of all threads, which other work on the machine does not change. `--check`
exits 1 when packing or decoding is below 0.7 of the peer, many scenes are extracted at less than 0.9 of
the views/s of few, or the store has more than a file per 24 or 64 views.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import sys
import tarfile
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judge import Seconds, alternate, median_interval, seconds
from PIL import Image
from strata.configs.schema import ExtractConfig
from strata.extract.encoders.registry import create
from strata.extract.pack import pack_scenes
from strata.extract.run import extract
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.open import open_scenes
from strata.extract.scenes.scene import Scene, SceneSource
from strata.extract.scenes.synthetic import SyntheticSource
from strata.extract.shards import ShardIndex

ENCODER, WEIGHTS = "vit_tiny_demo", "random:0"
WIDTH, HEIGHT, SMALL_WIDTH, SMALL_HEIGHT = 640, 480, 56, 42
FEW, SMALL = 10, 2
NOISE = 0.3
TAR_GOAL, SCENES_GOAL = 0.7, 0.9
# What is extracted -> (options, views per file that are asked for).
STORES: dict[str, tuple[dict[str, Any], int]] = {
    "four layers, all views": ({"layers": ["1/4", "1/2", "3/4", "last"], "views": "all"}, 24),
    "one layer, views=geometry": ({"layers": ["last"], "views": "geometry"}, 64),
}


@dataclass(frozen=True)
class Repeated(SceneSource):
    """One synthetic room under many ids, its views again and again."""

    scenes: int
    views: int

    def ids(self) -> list[str]:
        return [f"repeated/room_{index:06d}" for index in range(self.scenes)]

    def scene(self, scene_id: str) -> Scene:
        views = _room().views
        many = (replace(views[i % len(views)], name=f"{i:06d}") for i in range(self.views))
        return Scene(id=scene_id, views=tuple(many), scale_type="metric")


@cache
def _room() -> Scene:
    return SyntheticSource(1, 8, SMALL_WIDTH, SMALL_HEIGHT).scene("synthetic/room_0")


def ratio(timed: list[tuple[Seconds, Seconds]]) -> tuple[str, float, float, float]:
    """(what was judged, median, its interval) of the peer's seconds over ours."""
    wall, cpu = (median_interval([peer[kind] / own[kind] for own, peer in timed]) for kind in (0, 1))
    return ("wall time", *wall) if abs(wall[0] - 1) > NOISE else ("CPU seconds", *cpu)


def told(title: str, timed: list[tuple[Seconds, Seconds]], items: int, unit: str, goal: float) -> bool:
    """Print a ratio; whether the goal is reached."""
    name, median, low, high = ratio(timed)
    own_s, peer_s = (statistics.median(pair[side][0] for pair in timed) for side in (0, 1))
    reached = median >= goal
    print(
        f"{title}: {median:.2f} of the peer in {name} ({low:.2f} to {high:.2f}), "
        f"{items / own_s:,.0f} {unit}/s against {items / peer_s:,.0f}; "
        f"goal at least {goal}: {'reached' if reached else 'MISSED'}"
    )
    return reached


def write_images(folder: Path, count: int) -> None:
    """Half JPEG, half PNG, each another."""
    folder.mkdir(parents=True)
    views = SyntheticSource(1, min(count, 12), WIDTH, HEIGHT).analytic("synthetic/room_0").views
    for i in range(count):
        shifted = np.roll(views[i % len(views)].image, i, axis=1)
        Image.fromarray(shifted).save(folder / f"{i:04d}.{'jpg' if i % 2 else 'png'}")


def plain_pack(images: Path, tar: Path) -> None:
    """What a script would do."""
    files = sorted(images.iterdir())
    with tar.open("wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        for path in files:
            np.asarray(Image.open(path).convert("RGB"))
            archive.add(path, path.name)
        file.flush()
        os.fsync(file.fileno())


def plain_decode(tar: Path) -> None:
    with tarfile.open(tar) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))


def our_decode(shards: Path) -> None:
    for scene in ShardIndex.open(shards):
        for view in scene.views:
            decode_view(view.verified(scene))


def against_tar(folder: Path, images: int, pairs: int) -> bool:
    """Print both ratios; whether the goals are reached."""
    source, shards, tar = folder / "images", folder / "shards", folder / "plain.tar"
    write_images(source, images)

    def our_pack() -> None:
        shutil.rmtree(shards, ignore_errors=True)
        pack_scenes(open_scenes(source), shards, shard_bytes=1 << 29)

    packed = alternate(lambda: seconds(our_pack), lambda: seconds(lambda: plain_pack(source, tar)), pairs)
    reached = told("pack", packed, images, "images", TAR_GOAL)
    decoded = alternate(
        lambda: seconds(lambda: our_decode(shards)), lambda: seconds(lambda: plain_decode(tar)), pairs
    )
    return told("decode", decoded, images, "images", TAR_GOAL) and reached


def extracted(folder: Path, options: dict[str, Any]) -> tuple[Seconds, int]:
    """Seconds of an extraction into a new store, which is removed, and the files that it had."""
    store = folder / "features.zarr"
    config = ExtractConfig(
        shards=str(folder / "shards"),
        store=str(store),
        encoder=ENCODER,
        weights=WEIGHTS,
        grid="aspect:4",
        storage="f16",
        device="cpu",
        batch=64,
        **options,
    )
    encoder = create(ENCODER, WEIGHTS)
    try:
        spent = seconds(lambda: extract(config, encoder=encoder))
        return spent, sum(path.is_file() for path in store.rglob("*"))
    finally:
        shutil.rmtree(store)


def many_scenes(folder: Path, views: int, pairs: int) -> bool:
    """Print views/s and files; whether the goals are reached."""
    sources = {"many": Repeated(views // SMALL, SMALL), "few": Repeated(FEW, views // FEW)}
    for name, source in sources.items():
        wall_s, _ = seconds(
            lambda name=name, source=source: pack_scenes(
                source, folder / name / "shards", shard_bytes=1 << 28
            )
        )
        print(f"{source.scenes:,} scenes of {source.views:,}: packed at {views / wall_s:,.0f} views/s")
    reached, files = True, {}
    for title, (options, _) in STORES.items():

        def run(name: str, title: str = title, options: dict[str, Any] = options) -> Seconds:
            spent, files[name, title] = extracted(folder / name, options)
            return spent

        timed = alternate(lambda run=run: run("many"), lambda run=run: run("few"), pairs)
        reached &= told(f"many scenes, {title}", timed, views, "views", SCENES_GOAL)
    for title, (_, goal) in STORES.items():
        per_file = views / files["many", title]
        reached &= per_file >= goal
        print(
            f"{title}: {files['many', title]:,} files, {per_file:.1f} views a file; "
            f"goal at least {goal}: {'reached' if per_file >= goal else 'MISSED'}"
        )
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description="Packing, decoding and many small scenes.")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    parser.add_argument("--images", type=int, default=48, help="images of the comparison with tarfile")
    parser.add_argument("--views", type=int, default=4000, help="views of the many and of the few scenes")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of timings")
    parser.add_argument("--only", choices=("tar", "scenes"), help="one part")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reached = True
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "scenes":
            reached &= against_tar(Path(folder) / "tar", options.images, options.pairs)
        if options.only != "tar":
            reached &= many_scenes(Path(folder) / "scenes", options.views, options.pairs)
    return 0 if reached or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
