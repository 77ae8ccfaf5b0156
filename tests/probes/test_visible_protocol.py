"""Protocol `visible` on an office with a thin wall: every decision against the definition, pair by pair."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from strata.configs.schema import CorrespondenceConfig, ExtractConfig
from strata.errors import ProbeError
from strata.extract.pack import pack_scenes
from strata.extract.run import extract
from strata.extract.scenes.scene import SceneSource
from strata.extract.scenes.synthetic import SyntheticScene, SyntheticSource
from strata.kernels.geometry import angle_deg
from strata.probes import visibility
from strata.probes.correspondence import run
from strata.probes.questions import padded
from strata.probes.ranking import ranking_metrics
from strata.probes.set_views import read_views
from strata.probes.viewpoints import BINS
from strata.probes.visibility import SurfaceView, near_pairs
from strata.probes.visible_protocol import VisibleProtocol, VisibleQuestion
from strata.probes.voxel_protocol import VoxelEdge, VoxelProtocol
from strata.store.feature_store import FeatureStore
from strata.store.selection import Selection

WALL = 1
"""The solid of an office that is seen from both sides."""


class Office(SceneSource):
    """One room with a thin wall, walked half round."""

    def __init__(self) -> None:
        self.rooms = SyntheticSource(scenes=4, views=9, width=96, height=72)

    def ids(self) -> list[str]:
        return ["synthetic/room_2"]

    def scene(self, scene_id: str):
        return self.rooms.scene(scene_id)

    def analytic(self) -> SyntheticScene:
        return self.rooms.analytic("synthetic/room_2")


def stored(folder: Path, views: str = "geometry") -> Path:
    pack_scenes(Office(), folder / "shards", shard_bytes=1 << 30)
    store = folder / "f.zarr"
    extract(
        ExtractConfig(
            shards=str(folder / "shards"), store=str(store), encoder="oracle_world", grid=[9, 12], views=views
        )
    )
    return store


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Selection:
    return FeatureStore.open(stored(tmp_path_factory.mktemp("office"))).select("oracle_world")


@pytest.fixture(scope="module")
def surfaces(office: Selection) -> list[SurfaceView]:
    names = [name for block in office.blocks() for name in block.names]
    views = read_views(office, names, VisibleProtocol().read)
    return [views[name] for name in names]


def question_of(views: list[SurfaceView]) -> VisibleQuestion:
    question = VisibleProtocol().ask(views, None)
    assert question is not None
    return question


@dataclass(frozen=True)
class Token:
    """All about one token, worked out on its own."""

    view: int
    point: np.ndarray
    footprint: float
    normal: np.ndarray
    seen: tuple[bool, ...]


def projected(point: np.ndarray, K: np.ndarray, cam_from_world: np.ndarray) -> tuple[float, float, float]:
    x, y, z = cam_from_world[:3, :3] @ point + cam_from_world[:3, 3]
    u, v, _ = K @ (x / z, y / z, 1)
    return float(u), float(v), float(z)


def slow_normal(
    point: np.ndarray, depth: np.ndarray, K: np.ndarray, cam_from_world: np.ndarray
) -> np.ndarray:
    """The least-squares plane of inverse depth in a 15 x 15 window, as numpy solves it."""
    u0, v0, z = projected(point, K, cam_from_world)
    rows, values = [], []
    for v, u in product(range(round(v0) - 7, round(v0) + 8), range(round(u0) - 7, round(u0) + 8)):
        if 0 <= v < depth.shape[0] and 0 <= u < depth.shape[1]:
            there = float(depth[v, u])
            if there > 0 and abs(there - z) <= 0.05 * z:
                rows.append((u, v, 1.0))
                values.append(1 / there)
    if not rows or np.linalg.matrix_rank(np.array(rows)) < 3:
        return np.full(3, np.nan)
    away = K.T @ np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return -cam_from_world[:3, :3].T @ away / np.linalg.norm(away)


def slow_sees(point: np.ndarray, depth: np.ndarray, K: np.ndarray, cam_from_world: np.ndarray) -> bool:
    u, v, z = projected(point, K, cam_from_world)
    if z <= 0 or not (-0.5 < u < depth.shape[1] - 0.5 and -0.5 < v < depth.shape[0] - 0.5):
        return False
    there = float(depth[round(v), round(u)])
    return there > 0 and abs(there - z) <= 0.02 * min(there, z)


def slow_tokens(office: Selection, names: tuple[int, ...]) -> dict[tuple[int, int], Token]:
    """By (view, token), from the arrays as the store has them."""
    (block,) = office.blocks()
    geometry, points = block.geometry(list(names)), block.token_points(list(names))
    depth = np.where(geometry.valid, geometry.depth_m, 0).astype(np.float64)
    cameras = list(zip(depth, geometry.K_px, geometry.cam_from_world, strict=True))
    found = {}
    for view, camera in enumerate(cameras):
        for index, point in enumerate(points.world[view].reshape(-1, 3).astype(np.float64)):
            if points.valid[view].flat[index]:
                _, _, z = projected(point, *camera[1:])
                found[view, index] = Token(
                    view=view,
                    point=point,
                    footprint=z / math.sqrt(camera[1][0, 0] * camera[1][1, 1]) * 14,
                    normal=slow_normal(point, *camera),
                    seen=tuple(slow_sees(point, *other) for other in cameras),
                )
    return found


def slow_label(a: Token, b: Token) -> str:
    distance, radius = float(np.linalg.norm(a.point - b.point)), (a.footprint + b.footprint) / 2
    if distance >= 3 * radius:
        return "negative"
    facing = float(a.normal @ b.normal) >= 0.5  # not where one is NaN
    both = a.seen[b.view] and b.seen[a.view]
    return "positive" if distance < radius and facing and both else "ignored"


def test_every_pair_is_decided_as_the_definition_says(office: Selection, surfaces: list[SurfaceView]):
    names = (1, 4, 7)
    question = question_of([surfaces[name] for name in names])
    per_view = question.plan.valid.shape[-1]
    near = {
        (i, j): "positive" if positive else "ignored"
        for i, j, positive in zip(
            question.near.i.tolist(),
            question.near.j.tolist(),
            question.near.corresponds.tolist(),
            strict=True,
        )
    }
    tokens = slow_tokens(office, names)
    asked = set()
    for (v, p), (w, q) in combinations(sorted(tokens), 2):
        if v != w:
            pair = (v * per_view + p, w * per_view + q)
            asked.add(pair)
            assert near.get(pair, "negative") == slow_label(tokens[v, p], tokens[w, q]), pair
    assert set(near) <= asked
    assert min(list(near.values()).count(label) for label in ("positive", "ignored")) > 50
    assert question.means(torch.ones(1, 3, per_view, 2))["noncorr_count"] == len(asked) - len(near)


def test_two_sides_of_a_thin_wall_never_correspond(surfaces: list[SurfaceView]):
    near = near_pairs(surfaces)
    radius = padded([view.footprint_m for view in surfaces]).flatten()
    world = padded([view.world for view in surfaces])[0].flatten(0, 1).double()
    side = np.concatenate(
        [sides(view, s) for view, s in zip(Office().analytic().views, surfaces, strict=True)]
    )
    side = torch.from_numpy(side)
    across = side[near.i] * side[near.j] < 0
    close = (world[near.i] - world[near.j]).norm(dim=-1) < (radius[near.i] + radius[near.j]) / 2
    assert int((across & close).sum()) > 100, "the wall should be thinner than a token is wide"
    assert int((near.corresponds & (side[near.i] * side[near.j] > 0)).sum()) > 100
    assert not bool((across & near.corresponds).any())
    voxel = VoxelProtocol(edge=VoxelEdge(size=0.2, metric=True)).ask(surfaces, None)
    assert voxel is not None
    ids = voxel.ids.flatten()
    assert bool((across & (ids[near.i] == ids[near.j])).any()), "cells do not tell the sides apart"


def sides(view, surface: SurfaceView) -> np.ndarray:
    """[P] 1 and -1 for the two sides of the wall, 0 for what is elsewhere; from the formulas."""
    points, normals = view.point_world.reshape(-1, 3), view.normal_world.reshape(-1, 3)
    at = [int(((points - token) ** 2).sum(-1).argmin()) for token in surface.world.numpy()]
    return np.where(view.solid.flat[at] == WALL, np.sign(np.round(normals[at, 1])), 0)


def facing_views(
    *, gap_m: float = 0.0, turned_deg: float = 0.0, depth_m: float = 2.0, known: bool = True
) -> list[SurfaceView]:
    """Two cameras side by side that look at a plane 2 m away, one token in the middle of each.

    Args:
        gap_m: between the tokens' points, along the plane.
        turned_deg: the second token's normal.
        depth_m: what the second view sees everywhere.
        known: whether the first token's normal is.
    """
    K_px = torch.tensor([[20.0, 0, 20], [0, 20, 20], [0, 0, 1]], dtype=torch.float64)
    views = []
    for x, shift in ((-0.5, 0.0), (0.5, gap_m)):
        cam_from_world = torch.eye(4, dtype=torch.float64)
        cam_from_world[0, 3] = -x
        views.append(
            SurfaceView(
                world=torch.tensor([[shift, 0.0, 2.0]]),
                valid=torch.ones(1, dtype=torch.bool),
                centre=torch.tensor([x, 0.0, 0.0], dtype=torch.float64),
                footprint_m=torch.tensor([0.5], dtype=torch.float64),
                normal=torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64),
                depth_m=torch.full((41, 41), 2.0),
                K_px=K_px,
                cam_from_world=cam_from_world,
            )
        )
    turn = math.radians(turned_deg)
    normal = torch.tensor([[math.sin(turn), 0.0, -math.cos(turn)]], dtype=torch.float64)
    views[1] = replace(views[1], normal=normal, depth_m=torch.full((41, 41), depth_m))
    return views if known else [replace(views[0], normal=views[0].normal * torch.nan), views[1]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "positive"),
        ({"gap_m": 0.49}, "positive"),
        ({"gap_m": 0.51}, "ignored"),
        ({"gap_m": 1.49}, "ignored"),
        ({"gap_m": 1.51}, "negative"),
        ({"turned_deg": 59.0}, "positive"),
        ({"turned_deg": 61.0}, "ignored"),
        ({"turned_deg": 180.0}, "ignored"),
        ({"depth_m": 1.97}, "positive"),
        ({"depth_m": 1.95}, "ignored"),
        ({"depth_m": 2.05}, "ignored"),
        ({"depth_m": 0.0}, "ignored"),
        ({"known": False}, "ignored"),
        ({"known": False, "gap_m": 1.6}, "negative"),
    ],
)
def test_each_condition_decides(options: dict, expected: str):
    views = facing_views(**options)
    question = question_of(views)
    metrics = question.means(torch.ones(1, 2, 1, 3))
    ranked = ranking_metrics(torch.ones(1, 2, 1, 3), question, question.labels())
    assert ranked["recall_1"] == ranked["mutual_precision"] == (1 if expected == "positive" else None)
    assert ranked["auc"] is None
    got = (metrics["corr_count"], metrics["noncorr_count"])
    assert got == {"positive": (1, 0), "ignored": (0, 0), "negative": (0, 1)}[expected]
    assert (metrics["corr"] is None) == (expected != "positive")
    turned = question_of(views[::-1]).means(torch.ones(1, 2, 1, 3))
    assert (turned["corr_count"], turned["noncorr_count"]) == got, "both directions count"


def test_the_angle_is_that_of_the_two_rays():
    near = near_pairs(facing_views(gap_m=0.4))
    rays = torch.tensor([[-0.5, 0, -2], [0.1, 0, -2]], dtype=torch.float64)
    torch.testing.assert_close(near.angle_deg, angle_deg(rays[:1], rays[1:]))


@pytest.mark.parametrize("broken", [False, True], ids=["finite", "with a NaN token"])
def test_means_equal_all_pairs(surfaces: list[SurfaceView], broken: bool):
    question = question_of(surfaces[2:6])
    tokens = torch.randn(1, 4, 108, 6, generator=torch.Generator().manual_seed(3)) + 0.5
    if broken:
        tokens[0, 1, 40:60] = torch.nan
    unit = torch.nn.functional.normalize(tokens.double(), dim=-1).flatten(0, 2)
    there = question.plan.valid.flatten() & unit.isfinite().all(-1)
    view = torch.arange(4).repeat_interleave(108)
    asked = (view[:, None] < view) & there[:, None] & there
    cosine = unit @ unit.T
    near, corresponds = question.near, question.near.corresponds
    label = torch.full(cosine.shape, -1)
    label[near.i, near.j] = len(BINS)
    bins = torch.bucketize(near.angle_deg, torch.tensor([30.0, 60, 90, 120]).double(), right=True)
    label[near.i[corresponds], near.j[corresponds]] = bins[corresponds]
    metrics = question.means(tokens)
    parts = {f"@{name}": label == index for index, name in enumerate(BINS)}
    wanted = {"corr": (label >= 0) & (label < len(BINS)), "noncorr": label < 0}
    wanted |= {f"corr{part}": pairs for part, pairs in parts.items()}
    for name, pairs in wanted.items():
        pairs = pairs & asked
        mean, part, bin_name = name.partition("@")
        assert metrics[f"{mean}_count{part}{bin_name}"] == int(pairs.sum())
        if bool(pairs.any()):
            assert metrics[name] == pytest.approx(float(cosine[pairs].mean()), abs=1e-6)
        else:
            assert metrics[name] is None


def test_the_order_of_views_changes_nothing(surfaces: list[SurfaceView]):
    tokens = torch.randn(1, 4, 108, 16, generator=torch.Generator().manual_seed(4))
    order = [2, 0, 3, 1]
    answers = []
    for views, values in (
        (surfaces[2:6], tokens),
        ([surfaces[2 + index] for index in order], tokens[:, order]),
    ):
        question = question_of(views)
        answers.append(question.means(values) | ranking_metrics(values, question, question.labels()))
    assert answers[0] == pytest.approx(answers[1], abs=1e-5)


def test_questions_are_told_apart(surfaces: list[SurfaceView]):
    first = question_of(surfaces[:3])
    assert first.digest == question_of(surfaces[:3]).digest
    blind = replace(surfaces[1], depth_m=torch.zeros_like(surfaces[1].depth_m))
    same_tokens = question_of([surfaces[0], blind, surfaces[2]])
    assert same_tokens.pairs == first.pairs, "pixels do not move tokens"
    assert same_tokens.digest != first.digest
    assert question_of(surfaces[1:4]).pairs != first.pairs


def test_sets_with_too_many_pairs_say_what_to_do(
    surfaces: list[SurfaceView], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(visibility, "MOST_PAIRS", 10)
    with pytest.raises(ProbeError, match="lie within their radii") as caught:
        near_pairs(surfaces[:2])
    assert "set_views=" in caught.value.fix


def test_a_store_without_depth_says_what_to_run(tmp_path: Path):
    store = stored(tmp_path, views="none")
    config = CorrespondenceConfig(store=str(store), out=str(tmp_path / "run"), pictures=0)
    assert config.protocol == ["visible"]
    with pytest.raises(ProbeError, match="no view set could be scored") as caught:
        run(config, Console(quiet=True))
    assert "the store has no depth and cameras" in caught.value.why
    assert "views=geometry or views=all" in caught.value.why
