"""MuM against what its official code computed, and both kinds of its official files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from strata.errors import EncoderError
from strata.extract.encoders.base import ViewBatch
from strata.extract.encoders.mum import create_mum
from strata.extract.encoders.presets import load_preset
from strata.extract.encoders.registry import create, describe
from strata.extract.encoders.timm_vit import TimmViT
from strata.testing import check_encoder

MODEL = {"url": "", "embed_dim": 64, "depth": 3, "num_heads": 4}


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    folder = shared / "golden" / "mum"
    if not folder.is_dir():
        pytest.skip("shared/ holds no golden/mum/")
    return folder


@pytest.fixture
def tiny(golden: Path) -> dict[str, torch.Tensor]:
    """The golden model's weights, under the official names."""
    return load_file(golden / "tiny_state_dict.safetensors")


def loaded(path: Path) -> TimmViT:
    """The golden model; its images come normalised already."""
    info = load_preset("mum_large").info
    info = replace(info, depth=3, width=64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return create_mum(MODEL, info, str(path))


def test_equals_the_official_code(golden: Path):
    outputs = load_file(golden / "tiny_64x64.safetensors")
    encoder = loaded(golden / "tiny_state_dict.safetensors")
    batch = ViewBatch(images=outputs["input.images"][None], grid=(4, 4))
    layers = ("patch_embed", "block0", "block0.attn", "block1", "block2", "norm")
    maps = encoder.forward(batch, layers)
    for layer in layers:
        name = layer.replace("block", "block.")
        official = outputs[f"f32.{'patch_embed' if layer == 'patch_embed' else name}"]
        patches = official if layer == "patch_embed" else official[:, 1:]
        torch.testing.assert_close(maps[layer].tokens[0].flatten(1, 2), patches, atol=2e-5, rtol=0)
    torch.testing.assert_close(maps["norm"].prefix[0, :, 0], outputs["f32.cls"], atol=2e-5, rtol=0)
    # Of the known mistakes the smallest would fail above: the norm's eps of the other official class.
    mistaken = outputs["f32_eps1e-6.norm"][:, 1:]
    assert (maps["norm"].tokens[0].flatten(1, 2) - mistaken).abs().max() > 2e-5


def test_positions_are_rotary_tables_of_the_place(golden: Path):
    """At any grid, square or not: coordinates in (-1, 1) along each axis, y before x."""
    encoder = loaded(golden / "tiny_state_dict.safetensors")
    tables: Any = encoder._model.rope
    for rows, cols in ((4, 4), (3, 5)):
        sin, cos = tables.get_embed((rows, cols)).chunk(2, dim=-1)
        y = (2 * (torch.arange(rows) + 0.5) / rows - 1).repeat_interleave(cols)
        x = (2 * (torch.arange(cols) + 0.5) / cols - 1).repeat(rows)
        periods = 100 ** (torch.arange(4) / 4)
        angles = 2 * torch.pi * torch.cat((y[:, None] / periods, x[:, None] / periods), dim=1).repeat(1, 2)
        torch.testing.assert_close(sin, angles.sin(), atol=1e-5, rtol=0)
        torch.testing.assert_close(cos, angles.cos(), atol=1e-5, rtol=0)


def test_both_official_files_are_one_encoder(tmp_path: Path, tiny: dict[str, torch.Tensor]):
    decoder = {
        "mask_token": torch.zeros(1, 1, 32),
        "rope_embed_decoder.periods": torch.zeros(2),
        "decoder_embed.weight": torch.zeros(32, 64),
        "decoder_frame_blocks.0.norm1.weight": torch.zeros(32),
        "decoder_pred.bias": torch.zeros(8),
    }
    rounded = {**tiny, "rope_embed.periods": tiny["rope_embed.periods"].bfloat16()}
    files = {"encoder.pth": rounded, "full.pth": {**tiny, **decoder}, "trained.pth": {"model": tiny}}
    for name, state in files.items():
        torch.save(state, tmp_path / name)
    assert len({loaded(tmp_path / name).weights_digest() for name in files}) == 1


def test_names_and_shapes_are_those_of_the_released_files(golden: Path):
    """The released encoder has just the tensors that the preset builds, and the unused table."""
    from strata.extract.encoders.mum import _build

    keys = json.loads((golden / "mum_keys.json").read_text())["encoder_checkpoint"]
    model: Any = load_preset("mum_large").model
    sizes = {name: value for name, value in model.items() if name != "url"}
    with torch.device("meta"):
        state = _build(sizes, seed=0, patch_size=16).state_dict()
    assert {name: list(t.shape) for name, t in state.items()} == {
        name: shape for name, shape in keys.items() if name != "rope_embed.periods"
    }


def test_files_of_something_else_are_refused(tmp_path: Path, tiny: dict[str, torch.Tensor]):
    del tiny["blocks.0.attn.qkv.bias"]
    torch.save({**tiny, "extra": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(EncoderError, match="do not fit") as caught:
        loaded(tmp_path / "other.pth")
    assert "missing: blocks.0.attn.qkv.bias" in caught.value.why
    assert "unexpected: extra" in caught.value.why


def test_keeps_the_contract(golden: Path):
    encoder = loaded(golden / "tiny_state_dict.safetensors")
    assert encoder.prefix_names() == ("cls",)
    check_encoder(encoder)


def test_the_release_is_read_from_torchs_cache(
    tmp_path: Path, tiny: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    released = tmp_path / "hub" / "checkpoints" / "MuM_ViTLarge.pth"
    released.parent.mkdir(parents=True)
    torch.save(tiny, released)
    info = replace(describe("mum_large"), depth=3, width=64)
    released_model: Any = load_preset("mum_large").model
    model = {**released_model, "embed_dim": 64, "depth": 3, "num_heads": 4}
    assert (
        create_mum(model, info, "hub").weights_digest()
        == create_mum(model, info, str(released)).weights_digest()
    )


def test_a_release_out_of_reach_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # Nothing listens at port 9 of this machine.
    model: Any = load_preset("mum_large").model
    monkeypatch.setitem(model, "url", "http://127.0.0.1:9/MuM_ViTLarge.pth")
    with pytest.raises(EncoderError, match="could not be downloaded") as caught:
        create("mum_large")
    assert "curl -LO http://127.0.0.1:9/MuM_ViTLarge.pth" in caught.value.fix
    assert "give weights=MuM_ViTLarge.pth" in caught.value.fix
    assert "weights=random:0 needs no download" in caught.value.fix
    assert not list((tmp_path / "hub").rglob("*"))
