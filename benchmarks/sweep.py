"""The correspondence probe over all layers of an encoder, against extracting them, and against products.

    python benchmarks/sweep.py [--check] [--pairs 5] [--views 4]

Mean cosines: ours is the probe as the command runs it, without ranking: points, depth, cameras and tokens of
one set of all views from the store, its question, and the records of 12 layers, in a warm process. The
peer is `extract`, which wrote those layers, points and depth: packed synthetic views of 640 x 480, the
weights of dinov2_small random, `grid=aspect:37`. The bound is 1/20.

Ranking: ours is all ranking measures of one layer and set from tokens in memory, with the question's labels
made before, as they are once for all layers; the peer is one product [L, D] x [D, L] of the set's tokens as
unit vectors. The bound is 0.7.

Both run on one thread: threads that wait for each other burn CPU time when the machine is busy. The two take
turns; a ratio is our CPU seconds over the peer's, printed as the median and its 95 % interval. `--check`
exits 1 when a median misses its bound.

Shapes: L tokens of all views, D channels.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import torch
from judge import alternate, cpu_seconds, median_interval
from strata.configs.schema import ExtractConfig
from strata.extract.pack import pack_scenes
from strata.extract.run import extract
from strata.extract.scenes.synthetic import SyntheticSource
from strata.probes.correspondence import Correspondence
from strata.probes.questions import Protocol, padded
from strata.probes.ranking import ranking_metrics
from strata.probes.set_views import read_views
from strata.probes.visible_protocol import VisibleProtocol
from strata.probes.voxel_protocol import VoxelEdge, VoxelProtocol
from strata.store.feature_store import FeatureStore
from strata.store.schema import ViewSet
from strata.store.selection import Selection

ENCODER, LAYERS = "dinov2_small", [f"block{index}" for index in range(12)]
SWEEP_BOUND, RANKING_BOUND = 1 / 20, 0.7
PROTOCOLS: tuple[Protocol, ...] = (VisibleProtocol(), VoxelProtocol(edge=VoxelEdge(size=0.05)))


def extracted(shards: Path, stores: Iterator[Path]) -> Path:
    """A new store with all layers of the shards' views."""
    store = next(stores)
    extract(
        ExtractConfig(
            shards=str(shards),
            store=str(store),
            encoder=ENCODER,
            weights="random:0",
            layers=LAYERS,
            set_count=1,
        )
    )
    return store


def sweep(protocol: Protocol, store: Path) -> int:
    """Records of all layers of one set of all views, from a store that was not open before."""
    selection = FeatureStore.open(store).select(ENCODER)
    return sum(1 for _ in Correspondence(one_set(selection), [protocol], ranking=False).evaluate(selection))


def one_set(selection: Selection) -> dict[str, list[ViewSet]]:
    views = [view for block in selection.blocks() for view in block.views]
    scene = selection.scenes[0]
    names, images = (tuple(getattr(view, part) for view in views) for part in ("name", "image_digest"))
    return {scene: [ViewSet(scene=scene, members=names, images=images)]}


def ranking(protocol: Protocol, store: Path) -> tuple[Callable[[], object], Callable[[], object]]:
    """The measures of one layer, and one product of its tokens."""
    selection = FeatureStore.open(store).select(ENCODER, layers=LAYERS[-1:])
    names = [name for block in selection.blocks() for name in block.names]
    points = read_views(selection, names, protocol.read)
    question = protocol.ask([points[name] for name in names], next(selection.blocks()).scene_scale_m)
    assert question is not None
    stored = read_views(selection, names, lambda block, rows: list(block.tokens(LAYERS[-1], rows)))
    tokens = padded([torch.from_numpy(stored[name]).flatten(0, 1) for name in names])
    unit = torch.nn.functional.normalize(tokens.float().flatten(0, 2), dim=-1)
    product = torch.empty(len(unit), len(unit))
    return partial(ranking_metrics, tokens, question, question.labels()), partial(
        torch.mm, unit, unit.T, out=product
    )


def report(name: str, seconds: list[tuple[float, float]], bound: float) -> bool:
    """Print one line; whether the bound is kept."""
    median, low, high = median_interval([own / other for own, other in seconds])
    own, other = (1e3 * statistics.median(times) for times in zip(*seconds, strict=True))
    kept = "" if median <= bound else "  MISSED"
    print(f"{name:<24} {median:6.3f} ({low:.3f} to {high:.3f}), bound {bound:.3f}; ", end="")
    print(f"{own:,.0f} and {other:,.0f} CPU ms{kept}")
    return median <= bound


def main() -> int:
    parser = argparse.ArgumentParser(description="The correspondence probe over all layers.")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bound is missed")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of timings")
    parser.add_argument("--views", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    kept = True
    try:
        source = SyntheticSource(scenes=1, views=options.views, width=640, height=480)
        pack_scenes(source, folder / "shards", shard_bytes=1 << 30)
        stores = (folder / f"{number}.zarr" for number in count())
        first = extracted(folder / "shards", stores)
        peer = partial(cpu_seconds, partial(extracted, folder / "shards", stores))
        for protocol in PROTOCOLS:
            ours = partial(cpu_seconds, partial(sweep, protocol, first))
            seconds = alternate(ours, peer, options.pairs)
            kept &= report(f"{protocol.name}, 12 layers", seconds, SWEEP_BOUND)
        for protocol in PROTOCOLS:
            ours, product = (partial(cpu_seconds, work) for work in ranking(protocol, first))
            seconds = alternate(ours, product, 3 * options.pairs)
            kept &= report(f"{protocol.name}, ranking", seconds, RANKING_BOUND)
    finally:
        shutil.rmtree(folder)
    return 0 if kept or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
