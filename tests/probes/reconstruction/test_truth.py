"""Scores against the truth: of what is exact, of what is wrong, and without a truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from strata.extract.scenes.exr import write_exr
from strata.extract.scenes.scene import Blob, View
from strata.extract.scenes.synthetic import SyntheticScene
from strata.probes.reconstruction.prediction import Prediction
from strata.probes.reconstruction.truth import score, scores_text

from .known_room import SCALE


def test_scores_of_what_is_exact(prediction: Prediction, scene: SyntheticScene):
    views = scored_views(prediction, scene)
    scores = score(prediction, views)
    assert scores["pose_auc_30"] == pytest.approx(100, abs=1e-4)
    assert scores["ate_rmse"] < 1e-6
    assert scores["depth_abs_rel"] < 1e-6
    assert scores["scale"] == pytest.approx(1 / SCALE, rel=1e-9)
    back = np.array(scores["truth_from_prediction"])
    first = back @ [*prediction.world_from_cam[0, :3, 3], 1]
    np.testing.assert_allclose(first[:3], scene.views[0].world_from_cam[:3, 3], atol=1e-9)
    assert scores_text(scores)[0] == "AUC@30 100.0"


def test_scores_of_what_is_wrong(prediction: Prediction, scene: SyntheticScene):
    views = scored_views(prediction, scene)
    deeper = score(replace(prediction, depth=1.1 * prediction.depth), views)
    assert deeper["depth_abs_rel"] == pytest.approx(0.1)
    shifted = prediction.cam_from_world.copy()
    shifted[1, 0, 3] += 0.1
    moved = score(replace(prediction, cam_from_world=shifted), views)
    assert moved["ate_rmse"] > 0.02
    assert moved["pose_auc_30"] < 95


def test_what_has_no_truth_has_no_scores(prediction: Prediction, scene: SyntheticScene):
    views = scored_views(prediction, scene)
    assert score(prediction, [replace(view, world_from_cam=None) for view in views]) is None
    assert score(prediction, [replace(views[0], world_from_cam=None), *views[1:]]) is None
    without_depth = score(prediction, [replace(view, depth=None) for view in views])
    assert without_depth["depth_abs_rel"] is None
    assert len(scores_text(without_depth)) == 2
    assert scores_text(None) == []


def scored_views(prediction: Prediction, scene: SyntheticScene) -> list[View]:
    """Views of the network's own pixels."""
    return [
        View(
            name=view.name,
            image=Blob(suffix="png", data=b""),
            depth=Blob(suffix="exr", data=write_exr(depth / np.float32(SCALE), half=False)),
            world_from_cam=view.world_from_cam,
        )
        for view, depth in zip(scene.views, prediction.depth, strict=True)
    ]
