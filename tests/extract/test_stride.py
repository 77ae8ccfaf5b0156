"""A token every few pixels: sizes, positions, keys and points where patches overlap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from strata.errors import ConfigError, EncoderError
from strata.extract.encoders.base import Encoder, EncoderInfo, ViewBatch
from strata.extract.encoders.registry import create
from strata.extract.preprocess import place, token_from_source_px
from strata.extract.token_points import cell_starts, token_points
from strata.store.key import Preprocess
from strata.testing import check_encoder
from timm.layers import resample_abs_pos_embed
from torch.nn.functional import conv2d, interpolate

from .compared import close

SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "patch_size": 14,
    "image_size": 56,
    "intermediate_size": 96,
}
FAMILIES = {
    "Dinov2": {},
    "Dinov2WithRegisters": {"num_register_tokens": 2},
    "CLIPVision": {},
    "ViTMAE": {},
    "ViT": {},
    "SiglipVision": {},
}
GRID = (4, 6)


def saved(family: str, folder: Path) -> Any:
    config = getattr(transformers, f"{family}Config")(**SMALL, **FAMILIES[family])
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}Model")(config)
    model.save_pretrained(folder)
    return model


def images_of(encoder: Encoder, grid: tuple[int, int]) -> ViewBatch:
    noise = torch.Generator().manual_seed(1)
    return ViewBatch(images=torch.rand(1, 2, 3, *encoder.info.pixels(grid), generator=noise), grid=grid)


def normalised(encoder: Encoder, batch: ViewBatch) -> torch.Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (encoder.info.mean, encoder.info.std))
    return (batch.images[0] - mean) / std


def test_sizes_of_images():
    info = EncoderInfo(name="x", patch_size=14, depth=0, stride=7)
    assert info.pixels((1, 3)) == (14, 28)
    assert EncoderInfo(name="x", patch_size=14, depth=0).pixels((1, 3)) == (14, 42)


def test_timm_embeds_a_patch_every_stride_and_interpolates_positions_to_that_grid():
    encoder: Any = create("vit_tiny_demo", "random:0", stride=7)
    batch = images_of(encoder, GRID)
    assert batch.images.shape[-2:] == (35, 49)
    model = encoder.module
    projection = model.patch_embed.proj
    patches = conv2d(normalised(encoder, batch), projection.weight, projection.bias, stride=7)
    assert patches.shape[-2:] == GRID
    positions = resample_abs_pos_embed(model.pos_embed, new_size=GRID, old_size=(16, 16), num_prefix_tokens=2)
    expected = (patches.flatten(2).mT + positions[:, -24:]).unflatten(1, GRID)
    close(encoder.forward(batch, ("patch_embed",))["patch_embed"].tokens[0], expected)


def test_rotary_positions_are_those_of_the_denser_grid():
    encoder: Any = create("timm:vit_small_patch16_dinov3", "random:0", stride=8)
    batch, seen = images_of(encoder, GRID), []
    rope = encoder.module.rope.get_embed
    encoder.module.rope.get_embed = lambda shape: seen.append(tuple(shape)) or rope(shape=shape)
    assert encoder.forward(batch, ("block0",))["block0"].tokens.shape == (1, 2, *GRID, 384)
    assert seen == [GRID]


def test_dinov2_of_transformers_interpolates_as_its_own_code_does(tmp_path: Path):
    model = saved("Dinov2", tmp_path)
    encoder: Any = create(f"hf:{tmp_path}", stride=7)
    batch, embeddings = images_of(encoder, GRID), model.embeddings
    projection = embeddings.patch_embeddings.projection
    patches = conv2d(normalised(encoder, batch), projection.weight, projection.bias, stride=7)
    native = embeddings.position_embeddings[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    positions = interpolate(native, size=GRID, mode="bicubic", align_corners=False)
    close(
        encoder.forward(batch, ("patch_embed",))["patch_embed"].tokens[0],
        (patches + positions).permute(0, 2, 3, 1),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_contract_holds_with_a_stride(family: str, tmp_path: Path):
    saved(family, tmp_path)
    encoder = create(f"hf:{tmp_path}", stride=7)
    assert encoder.info.stride == 7
    check_encoder(encoder)


@pytest.mark.parametrize("name", ["vit_tiny_demo", "oracle_rgb", "oracle_world", "oracle_position"])
@pytest.mark.parametrize("stride", [2, 7])
def test_the_kit_passes_others_too(name: str, stride: int):
    check_encoder(create(name, "random:0", stride), sees_content=name != "oracle_position")


@pytest.mark.parametrize("name", ["vit_tiny_demo", "oracle_rgb", "oracle_position"])
def test_a_stride_of_a_patch_is_none(name: str):
    plain, same = create(name, "random:0"), create(name, "random:0", stride=14)
    assert same.info == plain.info
    batch = images_of(plain, (3, 4))
    close(same.forward(batch, ("norm",))["norm"].tokens, plain.forward(batch, ("norm",))["norm"].tokens)
    back = create(name, "random:0", stride=7).overlap(14)
    close(back.forward(batch, ("norm",))["norm"].tokens, plain.forward(batch, ("norm",))["norm"].tokens)


def test_every_second_token_of_half_a_patch_is_a_token_of_whole_patches():
    dense: Any = create("oracle_rgb", stride=7)
    plain = create("oracle_rgb")
    batch = images_of(plain, (3, 4))
    tokens = dense.forward(ViewBatch(images=batch.images, grid=(5, 7)), ("norm",))["norm"].tokens
    close(tokens[:, :, ::2, ::2], plain.forward(batch, ("norm",))["norm"].tokens)


@pytest.mark.parametrize("stride", [0, -7, 3, 28])
def test_strides_that_do_not_divide_the_patch(stride: int):
    with pytest.raises(EncoderError, match="cannot have a token every") as caught:
        create("vit_tiny_demo", "random:0", stride)
    assert "1, 2, 7, 14" in caught.value.fix


def test_sizes_that_end_inside_a_patch():
    encoder = create("vit_tiny_demo", "random:0", stride=7)
    with pytest.raises(EncoderError, match="35 x 50") as caught:
        encoder.forward(ViewBatch(images=torch.rand(1, 1, 3, 35, 50), grid=GRID), ("norm",))
    assert "35 x 49 and 35 x 56" in caught.value.fix
    with pytest.raises(EncoderError, match="cannot look at"):
        encoder.forward(ViewBatch(images=torch.rand(1, 1, 3, 7, 14), grid=(1, 1)), ("norm",))


def test_pixels_mean_a_grid():
    pixels = Preprocess(grid=None, pixels=(35, 49))
    assert pixels.resolve_grid(640, 480, 14, 7) == GRID
    assert pixels.resolve_grid(480, 640, 14, 7) == GRID[::-1]
    with pytest.raises(ConfigError, match="do not divide") as caught:
        Preprocess(grid=None, pixels=(36, 49)).resolve_grid(640, 480, 14, 7)
    assert "[35,49] and [42,49]" in caught.value.fix


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_source_pixels_of_token_centres(fit: str):
    placement = place(100, 80, (35, 49), fit)
    A = token_from_source_px(placement, 14, stride=7)
    sx, tx, sy, ty = placement.affine
    for col, row in ((0, 0), (5, 3), (2, 1)):
        # The centre of the patch of token (row, col), in pixels of the preprocessed image.
        u, v = 7 * col + 6.5, 7 * row + 6.5
        np.testing.assert_allclose(A @ [(u - tx) / sx, (v - ty) / sy, 1], [col, row], atol=1e-9)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_cells_lie_around_token_centres(fit: str):
    """On an image of the encoder's own size a cell is the square of the stride around its token's centre."""
    rows, cols = cell_starts(56 * 9, 42 * 9, (5, 7), fit, patch=14, stride=7)
    np.testing.assert_array_equal(rows, np.ceil(9 * (3.5 + 7 * np.arange(6)) - 0.5))
    np.testing.assert_array_equal(cols, np.ceil(9 * (3.5 + 7 * np.arange(8)) - 0.5))


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_without_a_stride_the_patch_is_no_matter(fit: str):
    plain = cell_starts(101, 67, (5, 9), fit)
    for patch in (2, 14):
        for axis, same in zip(plain, cell_starts(101, 67, (5, 9), fit, patch=patch), strict=True):
            np.testing.assert_array_equal(axis, same)


def test_points_are_those_of_the_tokens():
    """On a plane that faces the camera the point of a token projects to the token's centre."""
    K_px = np.array([[100.0, 0, 69.5], [0, 100, 48.5], [0, 0, 1]])
    points = token_points(
        np.full((98, 140), 2.0, np.float32), K_px, np.eye(4), GRID, "crop", patch=14, stride=7
    )
    placement = place(140, 98, (35, 49), "crop")
    A = token_from_source_px(placement, 14, stride=7)
    uv1 = np.concatenate([points.world[..., :2] * 50 + K_px[:2, 2], np.ones((*GRID, 1))], axis=-1)
    col_row = uv1 @ A.T
    expected = np.stack(np.meshgrid(np.arange(6), np.arange(4)), axis=-1)
    # The chosen pixel is any of the cell, and all have one depth: the first of a cell is half a cell away.
    assert np.abs(col_row - expected).max() < 0.51
    assert points.valid.all()


def test_encoders_that_take_no_stride(colour: type[Encoder]):
    with pytest.raises(EncoderError, match="cannot be made to overlap"):
        colour().overlap(2)
