"""Ranking measures against sorted lists of all candidates, for cells and for visible pairs."""

from __future__ import annotations

import bisect
from collections import defaultdict

import pytest
import torch
from strata.probes.cell_questions import CellQuestion
from strata.probes.questions import Question, ViewPoints
from strata.probes.ranking import auc, ranking_metrics
from strata.probes.viewpoints import BINS
from strata.probes.visibility import SurfaceView
from strata.probes.visible_protocol import VisibleProtocol, VisibleQuestion
from strata.probes.voxel_protocol import VoxelEdge, VoxelProtocol

VIEWS, TOKENS, WIDTH = 3, 40, 6


def sphere_views() -> list[SurfaceView]:
    """Three cameras around a wide screen at z = 0 that all of them see whole, tokens strewn over it."""
    generator = torch.Generator().manual_seed(5)
    K_px = torch.tensor([[30.0, 0, 50], [0, 30, 50], [0, 0, 1]], dtype=torch.float64)
    views = []
    for x in (-1.5, 0.0, 1.8):
        cam_from_world = torch.eye(4, dtype=torch.float64)
        cam_from_world[:3, 3] = torch.tensor([-x, 0, 2])
        world = torch.cat((torch.rand(TOKENS, 2, generator=generator) - 0.5, torch.zeros(TOKENS, 1)), dim=-1)
        views.append(
            SurfaceView(
                world=world,
                valid=torch.rand(TOKENS, generator=generator) > 0.1,
                centre=torch.tensor([x, 0.0, -2.0], dtype=torch.float64),
                footprint_m=torch.full((TOKENS,), 0.15, dtype=torch.float64),
                normal=torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64).expand(TOKENS, 3),
                depth_m=torch.full((101, 101), 2.0),
                K_px=K_px,
                cam_from_world=cam_from_world,
            )
        )
    return views


def labels_of(question: Question) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[V * P, V * P]: positive, negative, and bin of a pair's angle; both directions."""
    view = torch.arange(VIEWS).repeat_interleave(TOKENS)
    other = view[:, None] != view
    if isinstance(question, CellQuestion):
        ids = question.ids.flatten()
        there = ids >= 0
        positive = other & (ids[:, None] == ids) & there
        angles = torch.zeros(positive.shape, dtype=torch.float64)
        for a, b, angle in zip(*question.plan.pairs, question.angles_deg, strict=True):
            for s, t in ((a, b), (b, a)):
                of_cell = (ids == question.plan.id[a]) & (view == question.plan.view[s])
                angles[of_cell[:, None] & (view == question.plan.view[t])] = angle
        ignored = torch.zeros_like(positive)
    else:
        assert isinstance(question, VisibleQuestion)
        there = question.plan.valid.flatten()
        positive, ignored = torch.zeros(2, *other.shape, dtype=torch.bool)
        angles = torch.zeros(other.shape, dtype=torch.float64)
        near = question.near
        for i, j, right, angle in zip(near.i, near.j, near.corresponds, near.angle_deg, strict=True):
            (positive if right else ignored)[(i, j), (j, i)] = True
            angles[(i, j), (j, i)] = angle
    negative = other & there[:, None] & there & ~positive & ~ignored
    edges = torch.tensor([30.0, 60, 90, 120], dtype=torch.float64)
    return positive, negative, torch.bucketize(angles, edges, right=True)


def bin_name(angle_deg: float) -> str:
    return next(name for name in BINS if angle_deg < float(name.split("-")[1]))


def angle_at(views: list[SurfaceView], query: int, w: int) -> float:
    """Between the rays from a token's point to its own camera and to that of view w, in degrees."""
    v, p = divmod(query, TOKENS)
    a, b = (views[k].centre - views[v].world[p].double() for k in (v, w))
    return float(torch.rad2deg(torch.acos(a @ b / a.norm() / b.norm())))


def by_sorting(tokens: torch.Tensor, question: Question, views: list[SurfaceView]) -> dict[str, list[float]]:
    """Hits by metric, query by query; and the similarities of pairs, each once."""
    unit = torch.nn.functional.normalize(tokens.double(), dim=-1).flatten(0, 2)
    cosine = unit @ unit.T
    positive, negative, pair_bin = labels_of(question)
    view = torch.arange(VIEWS).repeat_interleave(TOKENS)
    found: dict[str, list[float]] = defaultdict(list)
    nearest = {}
    for query in range(VIEWS * TOKENS):
        for w in range(VIEWS):
            keys = [key for key in range(VIEWS * TOKENS) if view[key] == w]
            keys = [key for key in keys if positive[query, key] or negative[query, key]]
            nearest[query, w] = sorted(keys, key=lambda key, query=query: -cosine[query, key])
    for (query, w), keys in nearest.items():
        hits = [bool(positive[query, key]) for key in keys]
        if any(hits):
            if isinstance(question, CellQuestion):
                own_bin = BINS[int(pair_bin[query, keys[hits.index(True)]])]
            else:
                own_bin = bin_name(angle_at(views, query, w))
            for part in ("", f"@{own_bin}"):
                found[f"recall_1{part}"].append(hits[0])
                found[f"recall_5{part}"].append(any(hits[:5]))
                if nearest[keys[0], int(view[query])][0] == query:
                    found[f"mutual_precision{part}"].append(hits[0])
    once = view[:, None] < view
    found["negatives"] = sorted(cosine[once & negative].tolist())
    in_bins = {f"@{name}": once & (pair_bin == index) for index, name in enumerate(BINS)}
    for part, here in {"": once, **in_bins}.items():
        found[f"positives{part}"] = cosine[here & positive].tolist()
    return found


def slow_auc(positives: list[float], negatives: list[float]) -> float:
    below = sum(bisect.bisect_left(negatives, p) + bisect.bisect_right(negatives, p) for p in positives)
    return below / 2 / len(positives) / len(negatives)


def slow_average_precision(positives: list[float], negatives: list[float]) -> float:
    ranked = sorted([(-p, 1) for p in positives] + [(-n, 0) for n in negatives])
    precision, right = [], 0
    for rank, (_, positive) in enumerate(ranked, start=1):
        right += positive
        precision += [right / rank] * positive
    return sum(precision) / len(precision)


@pytest.mark.parametrize("name", ["voxel", "visible"])
def test_measures_equal_sorted_lists(name: str):
    views = sphere_views()
    protocol = VoxelProtocol(edge=VoxelEdge(size=0.2, metric=True)) if name == "voxel" else VisibleProtocol()
    question = protocol.ask(views, None)
    assert question is not None
    # Tokens know their place a little, so that measures are neither 0 nor 1.
    generator = torch.Generator().manual_seed(6)
    places = torch.randn(3, WIDTH, generator=generator)
    tokens = torch.stack([4 * view.world @ places for view in views])[None]
    tokens = tokens + torch.randn(tokens.shape, generator=generator)
    labels = question.labels()
    expected = by_sorting(tokens, question, views)
    metrics = ranking_metrics(tokens, question, labels)
    parts = ["", *(f"@{part}" for part in BINS)]
    for part in parts:
        for metric in ("recall_1", "recall_5", "mutual_precision"):
            hits = expected[f"{metric}{part}"]
            assert metrics[f"{metric}{part}"] == (pytest.approx(sum(hits) / len(hits)) if hits else None)
        assert metrics[f"query_count{part}"] == len(expected[f"recall_1{part}"])
        assert metrics[f"mutual_count{part}"] == len(expected[f"mutual_precision{part}"])
        positives = expected[f"positives{part}"]
        wanted = slow_auc(positives, expected["negatives"]) if positives else None
        assert metrics[f"auc{part}"] == pytest.approx(wanted, abs=1e-4)
    ranked = slow_average_precision(expected["positives"], expected["negatives"])
    assert metrics["average_precision"] == pytest.approx(ranked, abs=1e-3)
    assert 0.05 < (metrics["recall_1"] or 0) < 0.95
    assert sum(bool(expected[f"positives{part}"]) for part in parts) >= 3, "several bins should be filled"


def test_ties_count_half():
    corr, noncorr = torch.tensor([[0, 2, 0], [0, 0, 1]]), torch.tensor([1, 2, 1])
    # Two positives tie with two of four negatives and are above one; the third ties with one, above three.
    assert auc(corr, noncorr).tolist() == pytest.approx([(2 * 2 + 3.5) / 12, 2 / 4, 3.5 / 4])
    assert auc(torch.zeros(1, 3, dtype=torch.int64), noncorr).isnan().all()


def test_without_correspondences_nothing_is_ranked():
    views = [
        ViewPoints(
            world=torch.full((2, 3), float(v)), valid=torch.ones(2, dtype=torch.bool), centre=torch.ones(3)
        )
        for v in range(2)
    ]
    question = VoxelProtocol(edge=VoxelEdge(size=0.5, metric=True)).ask(views, None)
    assert question is not None
    metrics = ranking_metrics(torch.randn(1, 2, 2, 3), question, question.labels())
    for name, value in metrics.items():
        assert value == (0 if "count" in name else None), name
