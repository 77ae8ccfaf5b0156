"""The two protocols against golden numbers and against loops over tokens."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from strata.configs.schema import CorrespondenceConfig
from strata.errors import ConfigError, ProbeError
from strata.kernels.voxel_cosine import voxel_cosine, voxel_segments
from strata.kernels.voxel_hash import voxel_hash
from strata.probes.cell_questions import CellQuestion
from strata.probes.correspondence import protocols_of
from strata.probes.questions import ViewPoints
from strata.probes.reference_protocol import (
    ReferenceProtocol,
    pool_patches,
    reference_ids,
    reference_metrics,
)
from strata.probes.viewpoints import BINS, bin_of, weighted_median
from strata.probes.voxel_protocol import VoxelEdge, VoxelProtocol


def test_reference_equals_the_original(shared: Path):
    golden = json.loads((shared / "golden/wai/golden.json").read_text())["corr_seed"]
    arrays = np.load(shared / "golden/wai/corr_inputs.npz")
    points, valid = pool_patches(torch.from_numpy(arrays["world"]), torch.from_numpy(arrays["mask"]), 14)
    ids = reference_ids(points.flatten(0, 1), valid.flatten(), 0.3)
    both = set(zip(ids.tolist(), arrays["ids"].tolist(), strict=True))
    assert len(both) == len({a for a, _ in both}) == len({b for _, b in both}), "another partition"
    assert all((a < 0) == (b < 0) for a, b in both)
    score = voxel_cosine(torch.from_numpy(arrays["feats"])[None], ids.reshape(1, *points.shape[:2]))
    metrics = reference_metrics(score)
    assert (metrics["corr_count"], metrics["noncorr_count"]) == (284, 69700)
    assert metrics["corr"] == pytest.approx(golden["corr_score"], abs=1e-5)
    assert metrics["noncorr"] == pytest.approx(golden["noncorr_score"], abs=1e-5)


def test_pooling_counts_invalid_pixels_and_cuts_the_border():
    world = torch.arange(2 * 5 * 3, dtype=torch.float32).reshape(1, 5, 6, 1).expand(1, 5, 6, 3)
    mask = torch.ones(1, 5, 6, dtype=torch.bool)
    mask[0, :2, :4] = False
    points, valid = pool_patches(world, mask, 4)  # [1, 2 * 2, 3]
    expected = [world[0, r, c, 0].mean() for r in (slice(4), slice(4, 5)) for c in (slice(4), slice(4, 6))]
    torch.testing.assert_close(points[0, :, 0], torch.stack(expected))
    assert valid.tolist() == [[True, True, True, True]]  # the first has 8 of 16 pixels
    mask[0, 2, 0] = False
    assert pool_patches(world, mask, 4)[1].tolist() == [[False, True, True, True]]


def test_reference_without_valid_tokens_or_pairs():
    assert reference_ids(torch.zeros(3, 3), torch.zeros(3, dtype=torch.bool), 0.3).tolist() == [-1] * 3
    score = voxel_cosine(torch.ones(1, 2, 1, 3), torch.tensor([[[0], [1]]]))
    assert reference_metrics(score) == {
        "corr": 0.0,
        "noncorr": pytest.approx(1),
        "corr_count": 0,
        "noncorr_count": 1,
    }
    views = [
        ViewPoints(world=torch.zeros(2, 3), valid=torch.zeros(2, dtype=torch.bool), centre=torch.zeros(3))
    ]
    assert ReferenceProtocol().ask(views * 2, None) is None


def random_views(seed: int = 0, sizes: tuple[int, ...] = (40, 40, 31)) -> list[ViewPoints]:
    """Views of a unit cube of points from all sides, the last of another length."""
    generator = torch.Generator().manual_seed(seed)
    return [
        ViewPoints(
            world=torch.rand(size, 3, generator=generator),
            valid=torch.rand(size, generator=generator) > 0.1,
            centre=(4 * torch.randn(3, generator=generator)).double() + 0.5,
        )
        for size in sizes
    ]


def by_tokens(views: list[ViewPoints], tokens: torch.Tensor, edge: float) -> dict[str, list[float]]:
    """Cosines by metric, one pair of tokens after the other."""
    cells: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for v, view in enumerate(views):
        for p in view.valid.nonzero()[:, 0].tolist():
            cell = tuple(math.floor(x / edge) for x in view.world[p].double().tolist())
            cells.setdefault(cell, []).append((v, p))
    found: dict[str, list[float]] = {"corr": [], **{f"corr@{name}": [] for name in BINS}}
    for members in cells.values():
        mean = torch.stack([views[v].world[p].double() for v, p in members]).mean(0)
        for v, p in members:
            for w, q in members:
                if v < w:
                    a, b = views[v].centre - mean, views[w].centre - mean
                    angle = math.degrees(math.acos(float(a @ b / a.norm() / b.norm())))
                    name = next(n for n in BINS if angle <= float(n.split("-")[1]))
                    x, y = tokens[0, v, p].double(), tokens[0, w, q].double()
                    cosine = float(x @ y / x.norm() / y.norm())
                    found["corr"].append(cosine)
                    found[f"corr@{name}"].append(cosine)
    return found


@pytest.mark.parametrize("broken", [False, True], ids=["finite", "with a NaN token"])
def test_angle_bins_equal_a_loop(broken: bool):
    views, edge = random_views(), 0.25
    tokens = torch.randn(1, 3, 40, 6, generator=torch.Generator().manual_seed(9))
    question = VoxelProtocol(edge=VoxelEdge(size=edge, metric=True)).ask(views, None)
    assert question is not None
    expected_views = views
    if broken:
        tokens[0, 1, :8] = torch.nan
    metrics = VoxelProtocol(edge=VoxelEdge(size=edge, metric=True)).metrics(
        voxel_cosine(tokens, question.ids, plan=question.plan, pairs=True), question
    )
    expected = by_tokens(expected_views, tokens, edge)
    filled = 0
    for name, cosines in expected.items():
        cosines = [cosine for cosine in cosines if not math.isnan(cosine)]
        value, count = metrics[name], metrics[name.replace("corr", "corr_count")]
        assert count == len(cosines)
        assert (value is None) == (not cosines)
        filled += bool(cosines)
        if cosines:
            assert value == pytest.approx(sum(cosines) / len(cosines), abs=1e-6)
    assert filled >= 4, "the test should fill most bins"


def test_bins_are_half_open():
    angles = torch.tensor([0.0, 29.99, 30.0, 119.9, 120.0, 180.0], dtype=torch.float64)
    assert [BINS[i] for i in bin_of(angles)] == ["0-30", "0-30", "30-60", "90-120", "120-180", "120-180"]


def test_sets_without_correspondences_have_no_score():
    ids = torch.tensor([[[0, 1], [2, 3]]])
    question = CellQuestion(
        protocol=VoxelProtocol(edge=VoxelEdge(size=1)),
        ids=ids,
        plan=voxel_segments(ids),
        angles_deg=torch.zeros(0).double(),
        digest="",
        pairs="",
        median_angle_deg=None,
    )
    metrics = question.means(torch.ones(1, 2, 2, 3))
    assert metrics["corr"] is None
    assert metrics["corr@0-30"] is None
    assert metrics["corr_count"] == metrics["corr_count@0-30"] == 0
    assert metrics["noncorr"] == pytest.approx(1)


def test_cells_do_not_depend_on_other_views():
    views = random_views(3)
    edge = VoxelEdge(size=0.25, metric=True)
    pair, three = (VoxelProtocol(edge=edge).ask(some, None) for some in (views[:2], views))
    assert pair is not None
    assert three is not None
    a, b = pair.ids.flatten(), three.ids[:, :2].flatten()
    assert len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


def test_the_digest_tells_questions_apart():
    views = random_views()
    protocol = VoxelProtocol(edge=VoxelEdge(size=0.05))
    digests = {
        (question.digest if (question := protocol.ask(*arguments)) else None)
        for protocol, *arguments in [
            (protocol, views, 5.0),
            (protocol, views, 5.0),
            (protocol, views, 5.1),
            (VoxelProtocol(edge=VoxelEdge(size=0.2, metric=True)), views, 5.0),
            (protocol, random_views(1), 5.0),
            (ReferenceProtocol(voxel=0.25), views, 5.0),
        ]
    }
    assert len(digests) == 5
    assert all(digest is not None and len(digest) == 16 for digest in digests)


def test_ids_of_shorter_views_end_early():
    question = VoxelProtocol(edge=VoxelEdge(size=0.25, metric=True)).ask(random_views(), None)
    assert question is not None
    assert question.ids.shape == (1, 3, 40)
    assert (question.ids[0, 2, 31:] == -1).all()


def test_edges():
    assert VoxelEdge.parse("0.3m").edge_m(None) == 0.3
    assert VoxelEdge.parse(0.05).edge_m(4.0) == pytest.approx(0.2)
    assert VoxelEdge.parse("0.05") == VoxelEdge.parse(0.05)
    with pytest.raises(ProbeError, match="no scale"):
        VoxelEdge.parse(0.05).edge_m(None)
    for wrong in ("0", "-1", "5cm", "m", "", "1e999", None, "1-2"):
        with pytest.raises(ConfigError, match="not the edge"):
            VoxelEdge.parse(wrong)


def test_protocols_by_name():
    config = CorrespondenceConfig(store="s", protocol=["voxel"], voxel="0.3m")
    assert [protocol.name for protocol in protocols_of(config)] == ["voxel"]
    config.protocol = ["voxel", "visable"]
    with pytest.raises(ConfigError, match="visable"):
        protocols_of(config)


def test_voxel_ids_are_those_of_the_hash():
    views = random_views()
    ids = VoxelProtocol(edge=VoxelEdge(size=0.1)).ids(views[0].world, views[0].valid, 2.0)
    assert torch.equal(ids[None], voxel_hash(views[0].world[None], views[0].valid[None], voxel_size=0.2))


def test_weighted_median():
    values = torch.tensor([30.0, 10.0, 20.0], dtype=torch.float64)
    assert weighted_median(values, torch.tensor([1, 1, 1])) == 20
    assert weighted_median(values, torch.tensor([5, 1, 1])) == 30
    assert weighted_median(values[:0], torch.zeros(0, dtype=torch.int64)) is None
