"""The model against the reference: every token and output, in two precisions, gradients, and all names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from strata.extract.encoders.vggt.model import VGGT

CASE = "tiny_dino14_b1s3_56x84"
# Refinements amplify the noise of float32.
STIFF = ("track_list", "track", "vis", "track_conf")


def computed(model: VGGT, images: torch.Tensor, queries: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the golden files hold, by their names."""
    sequences = model.aggregator.patch_embed.sequence(images.flatten(0, 1))
    normed = model.aggregator.patch_embed.norm(sequences)
    layers = model.aggregate(images, range(4))
    outputs = model(images, queries)
    features = track_features(model, layers, images)
    tracks = model.track_head.tracker(features, queries)[0]
    first, first_vis, first_conf = model.track_head.tracker(features, queries, iters=1)
    return {
        "enc_prenorm": sequences,
        "enc_cls": normed[:, 0],
        "enc_reg": normed[:, 1:5],
        "patch_tokens": normed[:, 5:],
        **{f"agg_tokens.{k}": tokens for k, tokens in layers.items()},
        "patch_start_idx": torch.tensor(model.aggregator.prefix),
        **{name: value for name, value in outputs.items() if name not in ("conf", "images")},
        "pose_enc_list": torch.stack(outputs["pose_enc_list"]),
        "track_conf": outputs["conf"],
        "track_fmap": features,
        "track_list": torch.stack(tracks),
        "iters1.track": first[-1],
        "iters1.vis": first_vis,
        "iters1.conf": first_conf,
    }


def track_features(model: VGGT, layers: dict[int, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    patches = [layers[k].flatten(0, 1)[:, model.aggregator.prefix :] for k in model.config.dpt_layers]
    height, width = images.shape[-2:]
    grid = (height // model.config.patch_size, width // model.config.patch_size)
    features = model.track_head.features(patches, grid, (height, width), width / height)
    return features.unflatten(0, images.shape[:2])


@pytest.mark.parametrize(("dtype", "prefix"), [("float32", "output."), ("float64", "output64.")])
def test_every_tensor_is_the_reference_s(golden: Path, reference_model: VGGT, dtype: str, prefix: str):
    given = load_file(golden / f"{CASE}.safetensors")
    expected = load_file(golden / f"{CASE}{'_fp64' if dtype == 'float64' else ''}.safetensors")
    model, kind = reference_model.to(getattr(torch, dtype)), getattr(torch, dtype)
    with torch.no_grad():
        ours = computed(model, given["input.images"].to(kind), given["input.query_points"])
    wanted = {name.removeprefix(prefix): t for name, t in expected.items() if name.startswith(prefix)}
    assert len(wanted) >= 20
    for name, tensor in wanted.items():
        atol = 2e-6 if dtype == "float64" else 5e-3 if name in STIFF else 5e-5
        rtol = 0 if dtype == "float64" else 1e-4
        torch.testing.assert_close(
            ours[name], tensor, atol=atol, rtol=rtol, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("checkpointing", [True, False])
def test_gradients_are_the_reference_s(
    golden: Path, manifest: dict[str, Any], reference_model: VGGT, checkpointing: bool
):
    given, noise = (load_file(golden / f"{CASE}{part}.safetensors") for part in ("", "_gradnoise"))
    model = reference_model.train()
    model.checkpointing = checkpointing
    outputs = model(given["input.images"], given["input.query_points"])
    poses = {f"pose_enc_list.{k}": pose for k, pose in enumerate(outputs.pop("pose_enc_list"))}
    named = {f"noise.{name}": value for name, value in {**outputs, **poses}.items()}
    objective = torch.stack([(named[name] * noise[name]).mean() for name in sorted(noise)]).sum()
    objective.backward()
    assert objective.item() == pytest.approx(manifest["grad"]["objective"], abs=5e-4)
    norms = {name: None if p.grad is None else p.grad.norm().item() for name, p in model.named_parameters()}
    expected = manifest["grad"]["grad_norms"]
    assert norms.keys() == expected.keys()
    for name, norm in expected.items():
        assert norms[name] == (None if norm is None else pytest.approx(norm, rel=1e-3, abs=1e-6)), name


def test_names_and_shapes_are_those_of_the_released_weights(golden: Path):
    released = json.loads((golden / "vggt_1b_keys.json").read_text())
    with torch.device("meta"):
        model = VGGT()
    assert {name: list(tensor.shape) for name, tensor in model.state_dict().items()} == released["keys"]
    assert sum(p.numel() for p in model.parameters()) == released["total_params"]
