"""Weights read and written: every way in, what is strict about it, and what another encoder leaves out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from strata.errors import ConfigError, EncoderError, StoreError
from strata.extract.encoders.registry import create
from strata.extract.encoders.vggt import checkpoint
from strata.extract.encoders.vggt.model import VGGT

VIT = "vit_tiny_patch16_224"


def same(a: VGGT, b: VGGT) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", ["folder", "model.safetensors"])
def test_what_is_saved_is_read(tiny: VGGT, tmp_path: Path, name: str):
    assert tiny.save(tmp_path / name) == tmp_path / name
    read = VGGT.from_pretrained(tmp_path / name)
    assert same(read, tiny)
    assert read.config == tiny.config
    assert not read.training
    assert read.weights == str(tmp_path / name)
    assert not read.aggregator.patch_embed.mask_token.requires_grad
    assert read.aggregator.camera_token.requires_grad
    assert read.aggregator.camera_token.device.type == "cpu"


def test_a_model_is_saved_in_the_same_bytes(tiny: VGGT, tmp_path: Path):
    saved = [tiny.save(tmp_path / f"{number}.safetensors").read_bytes() for number in range(8)]
    assert len(set(saved)) == 1


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model": state, "epoch": 3}])
def test_torch_checkpoints_need_their_config(tiny: VGGT, config: dict[str, Any], tmp_path: Path, wrap: Any):
    torch.save(wrap(tiny.state_dict()), tmp_path / "model.pt")
    assert same(VGGT.from_pretrained(tmp_path / "model.pt", config=config), tiny)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert same(VGGT.from_pretrained(tmp_path), tiny)


def test_a_name_that_is_no_repository_is_not_looked_for_on_the_hub():
    with pytest.raises(EncoderError, match="there are no weights 'vggt'"):
        VGGT.from_pretrained("vggt")


def test_the_hub(tiny: VGGT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tiny.save(tmp_path)
    asked = []

    def find(repo: str, *names: str, instead: str = "") -> Path | None:
        asked.append((repo, names[0]))
        return tmp_path / names[0]

    monkeypatch.setattr(checkpoint, "hub_file", find)
    monkeypatch.setattr(checkpoint, "find_on_hub", find)
    model = VGGT.from_pretrained("owner/vggt-1.5")
    assert same(model, tiny)
    assert model.weights == "owner/vggt-1.5"
    assert asked == [("owner/vggt-1.5", "model.safetensors"), ("owner/vggt-1.5", "config.json")]


def test_a_checkpoint_of_another_config(tiny: VGGT, config: dict[str, Any], tmp_path: Path):
    save_file(tiny.state_dict(), tmp_path / "bare.safetensors")
    other = {**config, "depth": 5, "num_register_tokens": 1, "track_head": None}
    with pytest.raises(EncoderError, match="do not fit the model") as caught:
        VGGT.from_pretrained(tmp_path / "bare.safetensors", config=other)
    lines = caught.value.why.splitlines()
    assert lines[0].startswith("36 missing: aggregator.frame_blocks.4.norm1.weight, ")
    assert lines[1] == "1 of another shape: aggregator.register_token [1, 2, 2, 16] instead of [1, 2, 1, 16]"
    assert "config=" in caught.value.fix
    state = {**tiny.state_dict(), "aggregator.extra": torch.zeros(1)}
    save_file(state, tmp_path / "more.safetensors")
    with pytest.raises(EncoderError) as caught:
        VGGT.from_pretrained(tmp_path / "more.safetensors", config=config)
    assert caught.value.why == "1 unexpected: aggregator.extra"


def test_parts_of_the_config_change(tiny: VGGT, tmp_path: Path, images: torch.Tensor):
    tiny.save(tmp_path)
    less = VGGT.from_pretrained(
        tmp_path, config={"track_head": None, "camera_head": {"iters": 3}, "encoder": {"frozen": True}}
    )
    assert less.track_head is None
    assert less.aggregator.frozen
    assert len(less(images)["pose_enc_list"]) == 3
    assert torch.equal(less(images)["depth"], tiny(images)["depth"])
    with pytest.raises(ConfigError, match="no depht"):
        VGGT.from_pretrained(tmp_path, config={"depht": 3})


def test_another_encoder_takes_the_place(tiny: VGGT, tmp_path: Path):
    tiny.save(tmp_path / "own")
    swapped = VGGT.from_pretrained(tmp_path / "own", encoder=create(VIT, "random:0"))
    assert swapped.config.patch_size == 16
    assert torch.equal(swapped.aggregator.camera_token, tiny.aggregator.camera_token)
    assert swapped.aggregator.projection.weight.isfinite().all()
    images = torch.rand(1, 2, 3, 32, 32)
    depth = swapped(images)["depth"]
    # Saved with the encoder's name and digest, read with that very encoder.
    swapped.save(tmp_path / "swapped")
    assert not [
        name for name in load_file(tmp_path / "swapped" / "model.safetensors") if "patch_embed" in name
    ]
    again = VGGT.from_pretrained(tmp_path / "swapped", config={"encoder": {"weights": "random:0"}})
    assert torch.equal(again(images)["depth"], depth)
    wrong = VGGT.from_pretrained(tmp_path / "swapped", config={"encoder": {"weights": "random:1"}})
    with pytest.raises(EncoderError, match="not the encoder"):
        wrong(images)


def test_a_trained_encoder_is_saved_with_the_model(config: dict[str, Any], tmp_path: Path):
    encoder = {"name": VIT, "weights": "random:0", "frozen": False}
    model = VGGT.from_config({**config, "patch_size": 16, "encoder": encoder})
    with torch.no_grad():
        model.aggregator.patch_embed.get_parameter("model.norm.bias").add_(1)
    model.save(tmp_path)
    assert same(VGGT.from_pretrained(tmp_path), model)


def test_what_cannot_be_read(tmp_path: Path, tiny: VGGT):
    with pytest.raises(EncoderError, match=r"no model\.safetensors"):
        VGGT.from_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="is not there"):
        VGGT.from_pretrained(tmp_path / "gone.safetensors")
    tiny.save(tmp_path)
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(EncoderError, match=r"config\.json cannot be read"):
        VGGT.from_pretrained(tmp_path)
    (tmp_path / "short.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(EncoderError, match="cannot be read"):
        VGGT.from_pretrained(tmp_path / "short.safetensors")


def test_saving_is_whole_or_nothing(tiny: VGGT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tiny.save(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(*args: Any, **options: Any) -> None:
        Path(args[1]).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StoreError, match="disk is full"):
        tiny.save(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
