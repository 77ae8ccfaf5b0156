"""Protocol `visible`: walls, means, the order of views, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from strata.configs.schema import CorrespondenceConfig
from strata.errors import ProbeError
from strata.probes import visibility
from strata.probes.correspondence import run
from strata.probes.questions import padded
from strata.probes.ranking import ranking_metrics
from strata.probes.viewpoints import BINS
from strata.probes.visibility import SurfaceView, near_pairs
from strata.probes.voxel_protocol import VoxelEdge, VoxelProtocol

from .office import WALL, Office, question_of, stored


def sides(view, surface: SurfaceView) -> np.ndarray:
    """[P] 1 and -1 for the two sides of the wall, 0 for what is elsewhere; from the formulas."""
    points, normals = view.point_world.reshape(-1, 3), view.normal_world.reshape(-1, 3)
    at = [int(((points - token) ** 2).sum(-1).argmin()) for token in surface.world.numpy()]
    return np.where(view.solid.flat[at] == WALL, np.sign(np.round(normals[at, 1])), 0)


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
