"""Models of transformers by name: presets, folders, the hub's cache, and where their weights come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from strata.errors import EncoderError
from strata.extract.encoders import hf_models
from strata.extract.encoders.presets import load_preset, preset_names
from strata.extract.encoders.registry import create, describe

SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 64}
VISION = {**SMALL, "patch_size": 14, "image_size": 28}
TEXT = {**SMALL, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
DINOV2 = {**VISION, "mlp_ratio": 2}
PRESETS = [name for name in preset_names() if load_preset(name).family == "hf"]


def config(family: str, **values: Any) -> Any:
    return getattr(transformers, f"{family}Config")(**values)


def saved(folder: Path, family: str = "Dinov2", **values: Any) -> Any:
    """A small model, saved; its config may be changed by `values`."""
    torch.manual_seed(0)
    base = DINOV2 if family.startswith("Dinov2") else VISION
    model = getattr(transformers, f"{family}Model")(config(family, **{**base, **values}))
    model.save_pretrained(folder)
    return model


def digest(folder: Path, weights: str = "hub") -> str:
    return create(f"hf:{folder}", weights).weights_digest()


def cached(cache: Path, repository: str, *absent: str) -> Path:
    """The folder of a repository in the cache; the hub has said that it lacks `absent`."""
    root = cache / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("abc")
    for name in absent:
        (root / ".no_exist" / "abc").mkdir(parents=True, exist_ok=True)
        (root / ".no_exist" / "abc" / name).touch()
    return root / "snapshots" / "abc"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_say_what_their_configs_say(name: str):
    preset = load_preset(name)
    assert isinstance(preset.model, dict)
    built = hf_models._config(preset.model, name)
    assert (built.patch_size, built.num_hidden_layers, built.hidden_size) == (
        preset.info.patch_size,
        preset.info.depth,
        preset.info.width,
    )
    assert preset.info.source.endswith(preset.model["repository"])
    family = hf_models.FAMILIES[preset.model["model_type"]]
    known = hf_models._IMAGENET if name.startswith("dino_") else family.normalisation
    assert (preset.info.mean, preset.info.std) == known


def test_a_preset_needs_no_network_for_random_weights(offline: Path):
    assert create("clip_base_32", "random:0").width("block11") == 768


def test_random_weights_are_decided_by_the_seed(tmp_path: Path):
    config("CLIPVision", **VISION).save_pretrained(tmp_path)
    before = torch.get_rng_state()
    first, again, other = (digest(tmp_path, f"random:{seed}") for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


def test_random_blocks_are_no_identities(tmp_path: Path):
    config("Dinov2", **DINOV2, layerscale_value=1e-5).save_pretrained(tmp_path)
    model: Any = create(f"hf:{tmp_path}", "random:0")
    assert model._model.encoder.layer[0].layer_scale1.lambda1.min() == 1


def test_weights_from_a_folder_a_file_and_a_checkpoint_are_the_same(tmp_path: Path):
    model = saved(tmp_path)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "new_names.pth")
    files = [tmp_path, tmp_path / "model.safetensors", tmp_path / "new_names.pth"]
    assert {digest(tmp_path, str(file)) for file in files} == {digest(tmp_path)}
    assert digest(tmp_path, "random:1") != digest(tmp_path)


@pytest.mark.parametrize("family", ["Dinov2", "Dinov2WithRegisters"])
def test_gated_mlps_keep_their_halves_apart(tmp_path: Path, family: str):
    model = saved(tmp_path, family, use_swiglu_ffn=True)
    encoder: Any = create(f"hf:{tmp_path}")
    kept = encoder._model.state_dict()
    mlps = {name: tensor for name, tensor in model.state_dict().items() if ".mlp." in name}
    assert len(mlps) >= 8
    assert all(torch.equal(kept[name], tensor) for name, tensor in mlps.items())


@pytest.mark.parametrize(
    ("whole", "family", "tower"),
    [
        ("CLIPModel", "CLIPVision", "vision_model"),
        ("SiglipModel", "SiglipVision", "vision_model"),
        ("ViTMAEForPreTraining", "ViTMAE", "vit"),
        ("ViTForImageClassification", "ViT", "vit"),
        ("Dinov2ForImageClassification", "Dinov2", "dinov2"),
    ],
)
def test_models_with_heads_and_text_towers_give_their_vision_part(
    tmp_path: Path, whole: str, family: str, tower: str
):
    values = config(family, **(DINOV2 if family == "Dinov2" else VISION))
    if tower == "vision_model":
        name = family.removesuffix("Vision")
        values = config(name, vision_config=values.to_dict(), text_config=TEXT)
    model = getattr(transformers, whole)(values)
    model.save_pretrained(tmp_path / "whole")
    part = getattr(model, tower)
    part.save_pretrained(tmp_path / "part")
    assert digest(tmp_path / "whole") == digest(tmp_path / "part")
    prefixed = {f"{tower}.{name}": tensor for name, tensor in part.state_dict().items()}
    torch.save(prefixed, tmp_path / "prefixed.pth")
    assert digest(tmp_path / "part", str(tmp_path / "prefixed.pth")) == digest(tmp_path / "part")


def test_settings_that_change_the_numbers_change_the_digest(tmp_path: Path):
    for name, values in {"a": {}, "b": {"hidden_act": "relu"}, "c": {"layer_norm_eps": 1e-3}}.items():
        saved(tmp_path / name, **values)
    saved(tmp_path / "d")
    (tmp_path / "d" / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0]}')
    assert len({digest(tmp_path / name) for name in "abcd"}) == 4


def test_normalisation_comes_from_the_preprocessor(tmp_path: Path):
    saved(tmp_path, "ViT")
    assert describe(f"hf:{tmp_path}").mean == (0.5, 0.5, 0.5)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}))
    info = describe(f"hf:{tmp_path}")
    assert (info.mean, info.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    file.write_text(json.dumps({"do_normalize": False, "image_mean": [0.1, 0.2, 0.3]}))
    info = describe(f"hf:{tmp_path}")
    assert (info.mean, info.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("mean", [[0.5], 0.5, ["a", "b", "c"], {"r": 1}])
def test_a_normalisation_that_is_none(tmp_path: Path, mean: Any):
    config("ViT", **VISION).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean}))
    with pytest.raises(EncoderError, match="is no colour"):
        describe(f"hf:{tmp_path}")


@pytest.mark.parametrize("name", ["./nowhere", "a/b/c", "no such", ""])
def test_neither_a_folder_nor_a_repository(name: str):
    for call in (describe, create):
        with pytest.raises(EncoderError, match="neither a folder here nor"):
            call(f"hf:{name}")


def test_weights_that_do_not_fit_are_listed(tmp_path: Path):
    saved(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["extra"] = state.pop("layernorm.bias")
    state["layernorm.weight"] = torch.zeros(7)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(EncoderError, match="do not fit") as caught:
        create(f"hf:{tmp_path}", str(tmp_path / "other.safetensors"))
    assert caught.value.why.splitlines() == [
        "1 missing: layernorm.bias",
        "1 unexpected: extra",
        "1 of another shape: layernorm.weight [7] instead of [48]",
    ]


def test_a_folder_without_weights_says_what_belongs_there(tmp_path: Path):
    config("Dinov2", **DINOV2).save_pretrained(tmp_path)
    assert create(f"hf:{tmp_path}", "random:0").info.depth == 2
    with pytest.raises(EncoderError, match=r"no model\.safetensors and no pytorch_model\.bin"):
        create(f"hf:{tmp_path}")


def test_a_folder_of_another_model_than_the_preset(tmp_path: Path):
    saved(tmp_path, "CLIPVision")
    with pytest.raises(EncoderError, match="another model than the preset") as caught:
        create("clip_base_32", str(tmp_path))
    assert "patch_size: the preset has 32, the folder 14" in caught.value.why
    assert f"encoder=hf:{tmp_path}" in caught.value.fix


def test_the_hub_out_of_reach_names_the_command(offline: Path):
    files = "config.json preprocessor_config.json model.safetensors"
    for weights in ("hub", "random:0"):
        with pytest.raises(EncoderError) as caught:
            create("hf:facebook/dinov2-base", weights)
        assert f"hf download facebook/dinov2-base {files} --local-dir dinov2-base" in caught.value.fix
        assert "give encoder=hf:dinov2-base in place of hf:facebook/dinov2-base" in caught.value.fix
        assert "random:0" not in caught.value.fix
    with pytest.raises(EncoderError, match=r"model\.safetensors of facebook/dinov2-base") as caught:
        create("dinov2_base_hf")
    assert caught.value.fix.endswith("give weights=dinov2-base; weights=random:0 needs no download")


def test_a_folder_of_weights_stands_in_for_the_hub(offline: Path, tmp_path: Path):
    saved(tmp_path / "download")
    encoder = create("hf:facebook/dinov2-tiny", str(tmp_path / "download"))
    assert encoder.info.name == "hf:facebook/dinov2-tiny"
    assert encoder.weights_digest() == digest(tmp_path / "download")


def test_the_cache_needs_no_network(offline: Path):
    folder = cached(offline, "some/vit", "preprocessor_config.json", "model.safetensors")
    model = saved(folder, "ViT")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    encoder = create("hf:some/vit")
    assert encoder.info == describe("hf:some/vit")
    assert encoder.info.source == "https://huggingface.co/some/vit"
    assert encoder.weights_digest() == digest(folder)


def test_a_normalisation_out_of_reach_is_not_guessed(offline: Path):
    saved(cached(offline, "some/vit"), "ViT")
    with pytest.raises(EncoderError, match=r"preprocessor_config\.json of some/vit"):
        create("hf:some/vit")


def test_a_repository_without_weights(offline: Path):
    folder = cached(offline, "some/vit", "preprocessor_config.json", "model.safetensors", "pytorch_model.bin")
    config("ViT", **VISION).save_pretrained(folder)
    with pytest.raises(EncoderError, match=r"some/vit has no model\.safetensors"):
        create("hf:some/vit")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"model_type": "resnet"}', "no vision transformer that Strata can read"),
        ('{"model_type": "vit", "hidden_size": "wide"}', "no ViTModel that Strata can run"),
        ("[]", "config.json cannot be read"),
        ("{", "config.json cannot be read"),
    ],
)
def test_configs_that_are_of_no_use(tmp_path: Path, text: str, said: str):
    (tmp_path / "config.json").write_text(text)
    for call in (describe, lambda name: create(name, "random:0")):
        with pytest.raises(EncoderError, match=said):
            call(f"hf:{tmp_path}")
