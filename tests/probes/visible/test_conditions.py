"""Each condition of protocol `visible` decides, on two views of one plane."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from strata.kernels.geometry import angle_deg
from strata.probes.ranking import ranking_metrics
from strata.probes.visibility import SurfaceView, near_pairs

from .office import question_of


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
