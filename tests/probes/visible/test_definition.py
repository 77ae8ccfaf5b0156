"""Protocol `visible` against its definition, pair by pair."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import torch
from strata.probes.visibility import SurfaceView
from strata.store.selection import Selection

from .office import question_of


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
