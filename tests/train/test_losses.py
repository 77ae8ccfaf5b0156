"""The loss of VGGT: values and gradients as recorded, and what the records do not show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from strata.errors import ConfigError, TrainError
from strata.kernels.dense_views import DenseViews
from strata.kernels.geometry import invert_rigid
from strata.train.camera_loss import camera_loss
from strata.train.dense_loss import dense_loss
from strata.train.loss_options import CameraLossOptions, DenseLossOptions, LossOptions
from strata.train.losses import vggt_loss
from torch import Tensor

SURFACES = {
    "nograd": "none",
    "grad": "slope",
    "grad_conf": "slope_conf",
    "normal": "normal",
    "normal_conf": "normal_conf",
}
RANGES = {"vr-1": None, "vr0.98": 0.98}
POINT_CASES = [f"point_{vr}_{mode}" for vr in RANGES for mode in SURFACES]
DEPTH_CASES = [f"depth_{vr}_{mode}" for vr in RANGES for mode in ("nograd", "grad", "grad_conf")]


@dataclass(frozen=True, kw_only=True)
class RecordedLoss:
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Mapping[str, float]]

    @property
    def truth(self) -> DenseViews:
        return DenseViews(
            points_world=self.tensors["batch.world_points"],
            depth=self.tensors["batch.depths"],
            world_from_cam=invert_rigid(self.tensors["batch.extrinsics"]),
            K_px=self.tensors["batch.intrinsics"],
        )

    @property
    def valid(self) -> Tensor:
        return self.tensors["batch.point_masks"]

    def predicted(self) -> dict[str, Tensor]:
        """Fresh leaves with gradients."""
        named = ((name[5:], value) for name, value in self.tensors.items() if name.startswith("pred."))
        return {name: value.clone().requires_grad_() for name, value in named}


@pytest.fixture(scope="session")
def recorded(shared: Path) -> RecordedLoss:
    folder = shared / "golden" / "vggt"
    values = json.loads((folder / "fn_loss_values.json").read_text())["values"]
    return RecordedLoss(tensors=load_file(folder / "fn_loss.safetensors"), values=values)


def same(value: torch.Tensor, expected: float) -> bool:
    return value.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("case", POINT_CASES + DEPTH_CASES)
def test_maps_are_scored_as_recorded(recorded, case: str):
    kind, valid_range, mode = case.split("_", 2)
    options = DenseLossOptions(surface=SURFACES[mode], valid_range=RANGES[valid_range])
    key = {"point": "world_points", "depth": "depth"}[kind]
    predicted, truth = recorded.predicted(), recorded.truth
    true = truth.points_world if kind == "point" else truth.depth[..., None]
    terms = dense_loss(predicted[key], predicted[f"{key}_conf"], true, recorded.valid, options)
    expected = recorded.values[case]
    assert same(terms["conf"], expected[f"loss_conf_{kind}"])
    assert same(terms["reg"], expected[f"loss_reg_{kind}"])
    assert same(terms["surface"], expected[f"loss_grad_{kind}"])


CAMERA_PARTS = {
    "camera": "loss_camera",
    "camera_translation": "loss_T",
    "camera_rotation": "loss_R",
    "camera_fov": "loss_FL",
}


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_cameras_are_scored_as_recorded(recorded, norm: str):
    options = LossOptions(camera=CameraLossOptions(norm=norm), depth=None, point=None)
    parts = vggt_loss(recorded.predicted(), recorded.truth, recorded.valid, options)
    for mine, name in CAMERA_PARTS.items():
        assert same(parts[mine], recorded.values[f"camera_{norm}"][name]), mine
    assert same(parts["loss"], 5 * recorded.values[f"camera_{norm}"]["loss_camera"])


def test_the_total_and_all_gradients_are_as_recorded(recorded):
    predicted = recorded.predicted()
    parts = vggt_loss(predicted, recorded.truth, recorded.valid)
    expected = recorded.values["multitask_5_1_1"]
    assert same(parts["loss"], expected["objective"])
    depth = sum(expected[f"loss_{term}_depth"] for term in ("conf", "reg", "grad"))
    assert same(parts["depth"], depth)
    assert parts["nonfinite"] == 0
    parts["loss"].backward()
    for name, value in predicted.items():
        torch.testing.assert_close(value.grad, recorded.tensors[f"grad.{name}"], atol=1e-7, rtol=1e-4)


def test_a_set_whose_first_view_is_empty_scores_no_camera(recorded):
    valid = recorded.valid.clone()
    valid[1, 0] = False
    options = LossOptions(depth=None, point=None)
    parts = vggt_loss(recorded.predicted(), recorded.truth, valid, options)
    for mine, name in CAMERA_PARTS.items():
        assert same(parts[mine], recorded.values["first_frame_of_b1_invalid_camera"][name]), mine


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_an_empty_batch_scores_nothing_and_reaches_every_prediction(recorded, norm: str):
    predicted = recorded.predicted()
    with torch.no_grad():
        predicted["depth"][0, 0, 0, 0] = torch.inf
    truth = replace(recorded.truth, world_from_cam=torch.full((2, 3, 4, 4), torch.nan))
    options = LossOptions(camera=CameraLossOptions(norm=norm))
    parts = vggt_loss(predicted, truth, torch.zeros_like(recorded.valid), options)
    assert {name: value.item() for name, value in parts.items() if value != 0} == {"nonfinite": 1}
    parts["loss"].backward()
    assert all(value.grad.count_nonzero() == 0 for value in predicted.values())


def test_truth_where_there_is_none_has_no_influence(recorded):
    plain, spoilt = recorded.predicted(), recorded.predicted()
    parts = vggt_loss(plain, recorded.truth, recorded.valid, SCORED_WITH_CONFIDENCE)
    parts["loss"].backward()
    holes = ~recorded.valid
    depth, points = recorded.truth.depth.clone(), recorded.truth.points_world.clone()
    depth[holes], points[holes] = torch.nan, torch.inf
    truth = replace(recorded.truth, depth=depth, points_world=points)
    vggt_loss(spoilt, truth, recorded.valid, SCORED_WITH_CONFIDENCE)["loss"].backward()
    for name, value in plain.items():
        assert torch.equal(value.grad, spoilt[name].grad), name


SCORED_WITH_CONFIDENCE = LossOptions(
    depth=DenseLossOptions(surface="slope_conf"), point=DenseLossOptions(surface="normal_conf")
)


def test_a_prediction_that_is_not_finite_is_counted_and_seen_in_the_gradient(recorded):
    predicted = recorded.predicted()
    pixel = tuple(recorded.valid.nonzero()[0].tolist())
    with torch.no_grad():
        predicted["world_points"][pixel] = torch.nan
        predicted["pose_enc_list"][3, 1, 2, 0] = torch.inf
    parts = vggt_loss(predicted, recorded.truth, recorded.valid)
    assert parts["nonfinite"] == 4
    assert all(value.isfinite() for value in parts.values())
    parts["loss"].backward()
    assert not predicted["world_points"].grad.isfinite().all()


def test_far_values_are_bounded(recorded):
    predicted = recorded.predicted()
    with torch.no_grad():
        for value in predicted.values():
            value.mul_(1e6)
    parts = vggt_loss(predicted, recorded.truth, recorded.valid)
    assert parts["depth_reg"] <= 100
    assert parts["camera_translation"] <= 100 * (1 + 0.6 + 0.36 + 0.216) / 4
    assert parts["camera_rotation"] > 1e3


def test_truth_beyond_the_bound_counts_as_the_bound():
    values = torch.full((1, 1, 20, 20, 1), 100.0)
    conf, valid = torch.ones(1, 1, 20, 20), torch.ones(1, 1, 20, 20).bool()
    terms = dense_loss(values, conf, 5 * values, valid, DenseLossOptions())
    assert (terms["reg"], terms["surface"]) == (0, 0)


def test_stages_are_a_list_or_stacked_and_the_last_weighs_most(recorded):
    predicted = recorded.predicted()
    options = LossOptions(depth=None, point=None)
    stacked = vggt_loss(predicted, recorded.truth, recorded.valid, options)
    listed = vggt_loss(
        {"pose_enc_list": list(predicted["pose_enc_list"])}, recorded.truth, recorded.valid, options
    )
    assert torch.equal(stacked["loss"], listed["loss"])
    poses, ones = torch.zeros(2, 1, 1, 9), torch.ones(1, 1, 11, 11).bool()
    truth = torch.zeros(1, 1, 9)
    early, late = poses.clone(), poses.clone()
    early[0, ..., 0], late[1, ..., 0] = 3, 3
    assert camera_loss(early, truth, ones)["camera"].item() == pytest.approx(0.6 / 2)
    assert camera_loss(late, truth, ones)["camera"].item() == pytest.approx(1 / 2)


def test_autocast_and_halves_cost_nothing_but_their_own_digits(recorded):
    truth = recorded.truth
    exact = vggt_loss(recorded.predicted(), truth, recorded.valid)
    with torch.autocast("cpu", torch.bfloat16):
        cast = vggt_loss(recorded.predicted(), truth, recorded.valid)
    assert all(torch.equal(exact[name], cast[name]) for name in exact)
    halves = {name: value.bfloat16() for name, value in recorded.predicted().items()}
    rough = vggt_loss(halves, recorded.truth, recorded.valid)
    assert rough["loss"].dtype == torch.float32
    assert rough["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.02)


def test_what_cannot_be_scored_is_told(recorded):
    predicted = recorded.predicted()
    del predicted["world_points_conf"]
    with pytest.raises(TrainError, match="does not predict world_points_conf") as caught:
        vggt_loss(predicted, recorded.truth, recorded.valid)
    assert "depth_conf" in caught.value.why
    vggt_loss(predicted, recorded.truth, recorded.valid, LossOptions(point=None))
    predicted["depth"] = predicted["depth"][..., 0]
    with pytest.raises(TrainError, match=r"depth has the shape \[2, 3, 28, 42\]") as caught:
        vggt_loss(predicted, recorded.truth, recorded.valid, LossOptions(point=None))
    assert "[2, 3, 28, 42, 1]" in caught.value.why


@pytest.mark.parametrize(
    ("made", "where"),
    [
        (lambda: LossOptions(camera=None, depth=None, point=None), "loss"),
        (lambda: LossOptions(depth=DenseLossOptions(surface="normal")), "depth.surface"),
        (lambda: DenseLossOptions(surface="grad"), "surface"),
        (lambda: DenseLossOptions(valid_range=1.5), "valid_range"),
        (lambda: DenseLossOptions(alpha=-1.0), "alpha"),
        (lambda: CameraLossOptions(norm="huber"), "camera.norm"),
        (lambda: CameraLossOptions(decay=float("nan")), "camera.decay"),
    ],
)
def test_options_that_cannot_be_meant(made, where: str):
    with pytest.raises(ConfigError) as caught:
        made()
    assert caught.value.where == where
    assert caught.value.fix
