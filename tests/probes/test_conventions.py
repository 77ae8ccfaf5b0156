"""The conventions, proven without an oracle, which would agree with itself under any pose.

On synthetic rooms the token pairs that correspond are those of points found by brute force from the
rooms' formulas; and depth moved through the cameras meets the other view's depth. Poses that are
inverted, in OpenGL axes or all the identity fail both. On real scenes depth agrees as it should.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from rich.console import Console
from strata.configs.schema import CorrespondenceConfig, ExtractConfig
from strata.extract.pack import pack_scenes
from strata.extract.run import extract
from strata.extract.scenes.open import open_scenes
from strata.extract.scenes.scene import SceneSource
from strata.extract.scenes.synthetic import SyntheticSource
from strata.probes.base import Record
from strata.probes.correspondence import run
from strata.probes.voxel_protocol import VoxelEdge, VoxelProtocol
from strata.store.feature_store import FeatureStore

GRID = (12, 16)
WRONG = {
    "inverted": np.linalg.inv,
    "opengl": lambda pose: pose @ np.diag([1.0, -1, -1, 1]),
    "identity": lambda pose: np.eye(4),
}


class Posed(SceneSource):
    """The synthetic rooms with their poses changed."""

    def __init__(self, change=lambda pose: pose):
        self.rooms, self.change = SyntheticSource(scenes=1, views=5, width=96, height=72), change

    def ids(self):
        return self.rooms.ids()

    def scene(self, scene_id):
        scene = self.rooms.scene(scene_id)
        views = [replace(view, world_from_cam=self.change(view.world_from_cam)) for view in scene.views]
        return replace(scene, views=tuple(views))


def stored(folder, source, grid=GRID, encoder="oracle_world"):
    pack_scenes(source, folder / "shards", shard_bytes=1 << 30)
    config = ExtractConfig(
        shards=str(folder / "shards"),
        store=str(folder / "f.zarr"),
        encoder=encoder,
        grid=grid if isinstance(grid, str) else list(grid),
        set_count=6,
    )
    extract(config)
    return FeatureStore.open(folder / "f.zarr")


def brute_force_points(view):
    """By cell, the analytic world point of the median pixel; only cells that are half filled."""
    height, width = view.depth_m.shape
    cells: dict[tuple[int, int], list] = {}
    for v in range(height):
        for u in range(width):
            row = int((Fraction(2 * v + 1, 2) * GRID[0] / height).__floor__())
            col = int((Fraction(2 * u + 1, 2) * GRID[1] / width).__floor__())
            cells.setdefault((row, col), []).append((view.depth_m[v, u], v, u))
    points = {}
    for cell, pixels in cells.items():
        pixels.sort()
        median = pixels[(len(pixels) - 1) // 2][0]
        near = [pixel for pixel in pixels if abs(pixel[0] - median) <= np.float32(0.05) * median]
        depth = near[(len(near) - 1) // 2][0]
        _, v, u = min(pixel for pixel in near if pixel[0] == depth)
        points[cell] = view.point_world[v, u]
    return points


def true_pairs(room, edge):
    """Pairs of ((view, cell), (view, cell)) of different views whose points share a grid cell.

    Also the (view, cell) whose point lies on a cell's face to within rounding: floors and walls of the
    rooms do, and may fall to either side.
    """
    places = [brute_force_points(view) for view in room.views]
    at_face = {
        (view, cell)
        for view, points in enumerate(places)
        for cell, point in points.items()
        if np.abs(point / edge - np.round(point / edge)).min() < 1e-4
    }
    found = set()
    for a, b in combinations(range(len(places)), 2):
        ours, theirs = (
            {cell: tuple(np.floor(point / edge).astype(int)) for cell, point in points.items()}
            for points in (places[a], places[b])
        )
        found |= {((a, c), (b, d)) for c, p in ours.items() for d, q in theirs.items() if p == q}
    return found, at_face


def stored_pairs(store):
    selection = store.select("oracle_world")
    (block,) = selection.blocks()
    protocol = VoxelProtocol(edge=VoxelEdge(size=0.05))
    question = protocol.ask(protocol.read(block, list(range(len(block)))), block.scene_scale_m)
    assert question is not None
    ids = question.ids[0].reshape(-1, *GRID).numpy()
    places = [(view, cell, ids[view][cell]) for view in range(len(ids)) for cell in np.ndindex(*GRID)]
    return {
        ((a, c), (b, d)) for (a, c, i), (b, d, j) in combinations(places, 2) if a != b and i == j and i >= 0
    }, 0.05 * block.scene_scale_m


def agreement(store, tmp_path):
    config = CorrespondenceConfig(
        store=str(store.root),
        encoder="oracle_world",
        protocol=["voxel"],
        pictures=0,
        out=str(tmp_path / "run"),
    )
    run(config, Console(quiet=True))
    records = [
        Record.from_json(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()
    ]
    values = {r.scene: r.value or 0.0 for r in records if r.metric == "depth_agreement"}
    return values, records


@pytest.fixture(scope="module")
def room():
    return SyntheticSource(scenes=1, views=5, width=96, height=72).analytic("synthetic/room_0")


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    folder = tmp_path_factory.mktemp("right")
    return stored(folder, Posed()), folder


def test_corresponding_pairs_are_those_of_analytic_points(room, right):
    found, edge = stored_pairs(right[0])
    expected, at_face = true_pairs(room, edge)
    clear = {pair for pair in expected if not at_face & set(pair)}
    assert len(clear) > 100
    assert {pair for pair in found if not at_face & set(pair)} == clear


@pytest.mark.parametrize("name", WRONG)
def test_wrong_poses_fail_pairs_and_depth_agreement(room, right, tmp_path, name):
    right_agreement, _ = agreement(right[0], tmp_path / "right")
    store = stored(tmp_path, Posed(WRONG[name]))
    found, edge = stored_pairs(store)
    expected, _ = true_pairs(room, edge)
    assert len(found & expected) < 0.5 * len(expected)
    wrong_agreement, records = agreement(store, tmp_path / "wrong")
    assert wrong_agreement["synthetic/room_0"] < 0.5 * right_agreement["synthetic/room_0"]
    # And the oracle notices nothing: it agrees with itself.
    own = [r.value for r in records if r.metric == "corr" and r.value is not None]
    assert not own or np.mean(own) > 0.9


def test_real_scenes_agree_and_the_oracle_is_the_ceiling(real_scenes, tmp_path):
    store = stored(tmp_path, open_scenes(str(real_scenes)), grid="aspect:37")
    agreements, records = agreement(store, tmp_path)
    assert len(agreements) == 4
    assert min(agreements.values()) >= 0.7
    assert np.median(list(agreements.values())) >= 0.8
    for scene in agreements:
        values = {
            metric: np.mean(
                [r.value for r in records if (r.scene, r.metric) == (scene, metric) and r.value is not None]
            )
            for metric in ("corr", "noncorr")
        }
        assert values["corr"] > 0.9, scene
        assert values["noncorr"] < 0.3, scene
