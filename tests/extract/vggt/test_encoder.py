"""VGGT as an encoder: its layers are the model's own, and weights come from wherever a model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from strata.errors import EncoderError, LayerError
from strata.extract.encoders.base import ViewBatch
from strata.extract.encoders.presets import load_preset
from strata.extract.encoders.registry import create, describe
from strata.extract.encoders.vggt.encoder import VGGTEncoder
from strata.extract.encoders.vggt.model import VGGT
from strata.testing import check_encoder

from ..compared import close

NAMES = ("patch_embed", *(f"{kind}{k}" for k in range(4) for kind in ("frame", "global")), "norm")


@pytest.fixture
def saved(tiny: VGGT, tmp_path: Path) -> Path:
    """The tiny model with noise in every weight, as training exports it: heads, config and all."""
    noise = torch.Generator().manual_seed(3)
    for parameter in tiny.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=noise)
    return tiny.save(tmp_path / "model")


@pytest.fixture
def encoder(saved: Path) -> VGGTEncoder:
    return loaded(saved)


def loaded(weights: Path | str) -> VGGTEncoder:
    encoder = create("vggt", str(weights))
    assert isinstance(encoder, VGGTEncoder)
    return encoder


def batch_of(images: torch.Tensor) -> ViewBatch:
    return ViewBatch(images=images, grid=(images.shape[-2] // 8, images.shape[-1] // 8))


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (16, 24), (40, 8)], ids=["native", "landscape", "portrait"])
def test_layers_are_the_models_own(tiny: VGGT, encoder: VGGTEncoder, size: tuple[int, int]):
    images = torch.rand(2, 3, 3, *size, generator=torch.Generator().manual_seed(1))
    batch = batch_of(images)
    maps = encoder.forward(batch, NAMES)
    pairs = tiny.aggregate(images, range(4))  # [B, V, N, 2 D]
    own = {f"frame{k}": pair[..., :16] for k, pair in pairs.items()}
    own |= {f"global{k}": pair[..., 16:] for k, pair in pairs.items()}
    own["norm"] = own["global3"]
    for name, sequence in own.items():
        close(maps[name].tokens.flatten(2, 3), sequence[:, :, 3:])
        close(maps[name].prefix, sequence[:, :, :3])
        assert maps[name].prefix_names == ("camera", "reg0", "reg1")
    # Images are normalised by the model, once.
    close(maps["patch_embed"].tokens.flatten(2, 3), tiny.aggregator.encode(images))
    cameras = tiny.aggregator.camera_token[0, :, 0]
    close(maps["patch_embed"].prefix[:, :, 0], cameras[[0, 1, 1]].expand(2, -1, -1))


def test_keeps_the_contract(encoder: VGGTEncoder):
    assert encoder.layers() == NAMES
    assert encoder.info.context == "set"
    check_encoder(encoder)


def test_every_view_knows_the_others_after_global_attention_alone(encoder: VGGTEncoder):
    images = torch.rand(1, 3, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    other = images.clone()
    other[:, 2] = 1 - other[:, 2]
    before, after = (encoder.forward(batch_of(x), ("frame0", "global0", "frame1")) for x in (images, other))
    assert torch.equal(before["frame0"].tokens[:, :2], after["frame0"].tokens[:, :2])
    for layer in ("global0", "frame1"):
        assert (before[layer].tokens - after[layer].tokens)[:, :2].abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize(
    ("layers", "calls"),
    [(("patch_embed",), (0, 0)), (("frame1",), (2, 1)), (("frame0", "global1"), (2, 2)), (("last",), (4, 4))],
)
def test_stops_after_the_last_wanted_layer(
    encoder: VGGTEncoder, images: torch.Tensor, layers: Any, calls: Any
):
    ran = {"frame": 0, "global": 0}
    for kind in ran:
        for block in getattr(encoder._aggregator, f"{kind}_blocks"):

            def count(*_: Any, kind: str = kind) -> None:
                ran[kind] += 1

            block.register_forward_hook(count)
    assert len(encoder.forward(batch_of(images), layers)) == len(layers)
    assert tuple(ran.values()) == calls


def test_sizes_come_with_the_weights(encoder: VGGTEncoder):
    info, declared = encoder.info, describe("vggt")
    assert (info.patch_size, info.depth, info.width) == (8, 4, 16)
    assert (declared.patch_size, declared.depth, declared.width) == (14, 24, 1024)
    assert (info.mean, info.std) == (declared.mean, declared.std)
    config = VGGT.from_config
    with torch.device("meta"):
        released = config(
            {"camera_head": None, "track_head": None, "enable_depth": False, "enable_point": False}
        )
    assert VGGTEncoder(released, declared).info == declared


def test_another_encoder_inside_is_a_part_of_it(config: dict[str, Any], tmp_path: Path):
    """What training exports with a swapped encoder: its own normalisation, patch size and weights."""
    del config["patch_size"]
    digests = []
    for weights in ("random:0", "random:1"):
        model = VGGT.from_config({**config, "encoder": {"name": "vit_tiny_demo", "weights": weights}})
        model.save(tmp_path / weights)
        digests.append(loaded(tmp_path / weights).weights_digest())
    assert digests[0] != digests[1]
    encoder, inner = loaded(tmp_path / "random:0"), create("vit_tiny_demo", "random:0")
    assert encoder.info.patch_size == 14
    images = torch.rand(1, 2, 3, 28, 42, generator=torch.Generator().manual_seed(1))
    batch = ViewBatch(images=images, grid=(2, 3))
    entered = inner.forward(batch, ("norm",))["norm"].tokens
    projected = encoder._aggregator.projection(entered)
    close(encoder.forward(batch, ("patch_embed",))["patch_embed"].tokens, projected)


def test_the_digest_is_of_what_the_layers_depend_on(tiny: VGGT, config: dict[str, Any], tmp_path: Path):
    def digest(**changes: Any) -> str:
        model = VGGT.from_config({**config, **changes})
        model.load_state_dict(tiny.state_dict(), strict=False)
        return VGGTEncoder(model, describe("vggt")).weights_digest()

    assert digest() == digest(camera_head=None) == digest(head_frames=2) == digest(seed=5)
    inner = {**config["encoder"], "num_heads": 4}  # no tensor tells how many there are
    assert len({digest(), digest(encoder=inner), digest(rope_freq=50.0)}) == 3


def test_random_weights_are_decided_by_the_seed():
    before = torch.get_rng_state()
    first, again, other = (create("vggt_tiny_demo", f"random:{k}").weights_digest() for k in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)
    model: Any = create("vggt_tiny_demo", "random:0")
    assert model._aggregator.frame_blocks[0].ls1.gamma.min() == 1  # no block of the floor is the identity


def test_the_demo_preset_says_what_it_builds():
    assert create("vggt_tiny_demo", "random:0").info == load_preset("vggt_tiny_demo").info
    with pytest.raises(EncoderError, match="vggt_tiny_demo has no weights on the hub"):
        create("vggt_tiny_demo")


def test_16_bit_is_autocast_over_float32_weights(encoder: VGGTEncoder, images: torch.Tensor):
    full = encoder.forward(batch_of(images), ("norm",))["norm"].tokens
    half = encoder.to("cpu", torch.bfloat16).forward(batch_of(images), ("norm",))["norm"].tokens
    assert {p.dtype for p in encoder._aggregator.parameters()} == {torch.float32}
    assert 0 < (half.float() - full).norm() / full.norm() < 0.05
    with pytest.raises(EncoderError, match="float64"):
        encoder.to("cpu", torch.float64)


def test_what_it_cannot_give(encoder: VGGTEncoder, images: torch.Tensor):
    for layer in ("block0", "frame4", "global0.attn"):
        with pytest.raises(LayerError):
            encoder.forward(batch_of(images), (layer,))
        with pytest.raises(LayerError):
            encoder.width(layer)
    with pytest.raises(EncoderError, match="neither a folder here"):
        create("vggt", "/nowhere")
