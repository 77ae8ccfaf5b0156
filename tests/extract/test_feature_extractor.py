"""The interface of 3DFeatProbe: its names find our encoders, its dictionaries hold their numbers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import strata
import torch
from strata.errors import ConfigError, EncoderError
from strata.extract.encoders.base import Encoder, EncoderInfo, FeatureMap, ViewBatch
from strata.extract.encoders.feature_extractor import FeatureExtractor, feature_extractor
from strata.extract.encoders.model_ids import encoder_of
from strata.extract.encoders.registry import create, describe

TIMM = {"use_timm": True, "backbone": "small", "checkpoint_path": "random:0"}


@pytest.fixture(scope="module")
def dinov2() -> FeatureExtractor:
    return feature_extractor("feature_extractor/DINOv2", {**TIMM, "with_registers": True})


@pytest.mark.parametrize(
    ("model_id", "options", "name"),
    [
        ("feature_extractor/dinov2", {}, "dinov2_base_hf"),
        ("dinov2", {"with_registers": True, "backbone": "large"}, "dinov2_large_reg_hf"),
        ("dinov2", {"backbone": "small"}, "hf:facebook/dinov2-small"),
        ("dinov2", {"backbone": "giant", "with_registers": True}, "hf:facebook/dinov2-with-registers-giant"),
        ("feature_extractor/DINOv2", {"use_timm": True}, "dinov2_base"),
        ("dinov2", {"use_timm": True, "with_registers": True, "backbone": "giant"}, "dinov2_giant_reg"),
        ("feature_extractor/dinov3", {"backbone": "large"}, "dinov3_large"),
        ("clip", {}, "clip_base_16"),
        ("clip", {"backbone": "openai/clip-vit-large-patch14"}, "clip_large_14"),
        ("clip", {"backbone": "base-32"}, "clip_base_32"),
        ("mae", {"backbone": "huge"}, "mae_huge"),
    ],
)
def test_names(model_id: str, options: dict[str, Any], name: str):
    assert encoder_of(model_id, **options) == name


def test_names_work_as_encoders():
    assert describe("feature_extractor/dinov2") == describe("dinov2_base_hf")
    assert create("feature_extractor/mae", "random:0").info == describe("mae_base")


def test_names_that_are_not_there():
    with pytest.raises(EncoderError, match="called 'feature_extractor/dino2'") as caught:
        encoder_of("feature_extractor/dino2")
    assert "dinov2" in caught.value.fix
    with pytest.raises(EncoderError, match="dinov3 has no backbone 'huge'") as caught:
        feature_extractor("feature_extractor/dinov3", backbone="huge")
    assert {"base", "large", "small"} <= set(caught.value.why.removeprefix("there are ").split(", "))
    with pytest.raises(EncoderError, match="no feature extractor"):
        describe("feature_extractor/resnet")


def test_attributes(dinov2: FeatureExtractor):
    assert (dinov2.patch_size, dinov2.embed_dim, dinov2.img_size) == (14, 384, 518)
    assert isinstance(dinov2.model, torch.nn.Module)
    assert strata.feature_extractor is feature_extractor


def test_the_dictionary_holds_what_the_model_itself_puts_out(dinov2: FeatureExtractor):
    images, info = torch.rand(2, 3, 42, 56), dinov2.encoder.info
    mean, std = (torch.tensor(v)[:, None, None] for v in (info.mean, info.std))
    model: Any = dinov2.model
    with torch.no_grad():
        expected = model.forward_features((images - mean) / std)
    features = dinov2(images)
    assert set(features) == {"x_norm", "x_norm_clstoken", "x_norm_patchtokens"}
    torch.testing.assert_close(features["x_norm"], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(features["x_norm_clstoken"], expected[:, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(features["x_norm_patchtokens"], expected[:, 5:], atol=1e-4, rtol=1e-4)
    grid = dinov2.forward_features(images, unflatten_patches=True)["x_norm_patchtokens"]
    assert torch.equal(grid, features["x_norm_patchtokens"].unflatten(1, (3, 4)))
    views = dinov2.forward_features(images[None])["x_norm_patchtokens"]
    assert torch.equal(views, features["x_norm_patchtokens"])


def test_images_are_normalised_before_they_are_padded_with_zeros(dinov2: FeatureExtractor):
    images, info = torch.rand(1, 3, 40, 61), dinov2.encoder.info
    mean, std = (torch.tensor(v)[:, None, None] for v in (info.mean, info.std))
    padded = torch.nn.functional.pad((images - mean) / std, (4, 5, 1, 1))
    done = FeatureExtractor(dinov2.encoder, preprocess_images=False)
    expected = done.forward_features(padded)["x_norm"]
    torch.testing.assert_close(dinov2.forward_features(images)["x_norm"], expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(EncoderError, match="cannot look at images of 40 x 61"):
        done.forward_features(images)


def test_bytes_are_colours(dinov2: FeatureExtractor):
    images = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8)
    scaled = dinov2.forward_features(images.float() / 255)["x_norm"]
    assert torch.equal(dinov2.forward_features(images)["x_norm"], scaled)
    with pytest.raises(EncoderError, match=r"shape \[28, 28, 3\]"):
        dinov2.forward_features(torch.rand(28, 28, 3))


def test_without_a_class_token_there_is_none():
    features = FeatureExtractor(create("oracle_rgb")).forward_features(torch.rand(2, 3, 28, 42))
    assert set(features) == {"x_norm", "x_norm_patchtokens"}
    assert torch.equal(features["x_norm"], features["x_norm_patchtokens"])


class Pairs(Encoder):
    """Colours as an encoder of sets has them: within each view, and less the mean over the set's views."""

    info = EncoderInfo(name="pairs", patch_size=14, depth=2, context="set")

    def width(self, layer: str) -> int:
        return 3

    def layers(self) -> tuple[str, ...]:
        return ("patch_embed", "frame0", "global0", "frame1", "global1", "norm")

    def forward(self, batch: ViewBatch, layers: tuple[str, ...]) -> dict[str, FeatureMap]:
        tokens = create("oracle_rgb").forward(batch, ("norm",))["norm"].tokens
        among = tokens - tokens.mean(1, keepdim=True)
        return {n: FeatureMap(tokens=among if n.startswith("global") else tokens) for n in layers}

    def weights_digest(self) -> str:
        return "0" * 64

    def to(self, device: str | torch.device, dtype: torch.dtype) -> Encoder:
        return self


def test_layers_of_sets_come_under_their_names():
    images = torch.rand(2, 3, 3, 28, 42)
    features = FeatureExtractor(Pairs()).forward_features(images)
    pairs = [f"aggregator_{kind}-{k}-0" for k in (0, 1) for kind in ("frame", "global")]
    assert list(features) == ["patch_embed", *pairs]
    assert features["patch_embed"]["x_norm_patchtokens"].shape == (6, 6, 3)
    within = features["aggregator_frame-1-0"]["x_norm_patchtokens"]
    assert torch.equal(within.flatten(0, 1), features["patch_embed"]["x_norm_patchtokens"])
    among = features["aggregator_global-0-0"]["x_norm_patchtokens"]
    torch.testing.assert_close(among, within - within.mean(1, keepdim=True))
    few = FeatureExtractor(Pairs(), layer_types=["patch_embed", "global"])
    unflattened = few.forward_features(images, unflatten_patches=True)
    assert list(unflattened) == ["patch_embed", "aggregator_global-0-0", "aggregator_global-1-0"]
    assert unflattened["aggregator_global-0-0"]["x_norm_patchtokens"].shape == (2, 3, 2, 3, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"use_tim": True}, "did you mean use_timm"),
        ({**TIMM, "layer_types": ["frames"]}, "did you mean frame"),
        ({"data_norm_type": "imagenet"}, "leave it out"),
    ],
)
def test_options_that_are_wrong(options: dict[str, Any], said: str):
    with pytest.raises(ConfigError) as caught:
        feature_extractor("dinov2", **options)
    assert said in caught.value.fix


def test_the_page_shows_what_runs(root: Path):
    page = (root / "docs" / "coming-from-3dfeatprobe.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=True)
    assert done.stdout == "14 384 torch.Size([2, 8, 10, 384])\n"
