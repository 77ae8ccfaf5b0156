"""An encoder that was trained inside of VGGT is an encoder like any other, under a name of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import strata
import torch
from strata.configs.schema import CorrespondenceConfig, ExtractConfig, ReportConfig
from strata.errors import ConfigError, EncoderError
from strata.extract.encoders.exported import is_exported
from strata.extract.encoders.listing import facts, info
from strata.extract.encoders.registry import create, describe
from strata.extract.encoders.weights import state_digest
from strata.extract.run import run as extract
from strata.probes.correspondence import run as probe
from strata.probes.report import report
from strata.testing import check_encoder
from strata.train.vggt_command import run

OWN = """
img_size: 56
embed_dim: 32
depth: 2
num_heads: 2
encoder: {type: dinov2, depth: 3, num_heads: 2, num_register_tokens: 2, mlp_ratio: 2.0, embed_dim: 16}
camera_head: {trunk_depth: 1, num_heads: 2, mlp_ratio: 2.0, iters: 2}
dpt: {features: 16, out_channels: [16, 16, 16, 16]}
"""
BLOCK = {"encoder": "vit_tiny_demo", "weights": "random:0", "layer": "block1"}


@pytest.fixture
def trained(training, console, tmp_path):
    """Train for two steps; the folder that is left."""

    def make(**words) -> Path:
        config = training(**{"train_encoder": True, "val_scene": None, "set_count": 2, "lr": 1e-2, **words})
        assert run(config, console) == 0
        return Path(config.out)

    return make


@pytest.fixture(scope="session")
def dinov2_folder(tmp_path_factory) -> str:
    """A small DINOv2 of transformers, as `save_pretrained` writes it."""
    from transformers import Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56}
    folder = tmp_path_factory.mktemp("hf") / "small-dinov2"
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(**sizes, patch_size=14)).save_pretrained(folder)
    return f"hf:{folder}"


def words_of(kind: str, dinov2_folder: str, tmp_path: Path) -> dict:
    (tmp_path / "own.yaml").write_text(OWN)
    return {
        "preset": BLOCK,
        "timm": {"encoder": "timm:test_vit", "weights": "random:1", "pixels": [48, 64]},
        "hf": {"encoder": dinov2_folder},
        "own": {"model": str(tmp_path / "own.yaml"), "train_encoder": False},
    }[kind]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("preset", "vit_tiny_demo-run"),
        ("timm", "test_vit.r160_in1k-run"),
        ("hf", "small-dinov2-run"),
        ("own", "vggt-run"),
    ],
)
def test_tokens_of_the_export_are_those_inside_of_the_model(
    trained, rooms, dinov2_folder, console, tmp_path, kind, name
):
    words = words_of(kind, dinov2_folder, tmp_path)
    out = trained(**words)
    layer, size = words.get("layer", "norm"), words.get("pixels", [42, 56])
    store = tmp_path / "f.zarr"
    how = {"pixels": size, "orient": "scene", "storage": "f32", "layers": [layer], "limit": 1}
    extract(
        ExtractConfig(shards=rooms.shards, store=str(store), encoder=str(out / "encoder"), **how), console
    )
    selection = strata.open_store(store).select(name, layers=[layer])
    assert selection.stored_key.key.weights == create(str(out / "encoder")).weights_digest()
    model = strata.VGGT.from_pretrained(out / "model")
    for block in selection.blocks():
        images = torch.from_numpy(block.images()).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            inside = model.aggregator.encode(images[None])[0]
        stored = torch.from_numpy(block.tokens(layer)).flatten(1, 2)
        torch.testing.assert_close(stored, inside, atol=1e-5, rtol=1e-5)
        # They are those of trained weights, not of the ones that training began with.
        before = create(words["encoder"], words.get("weights", "hub")) if kind != "own" else None
        assert before is None or before.weights_digest() != selection.stored_key.key.weights


def test_an_export_is_told_of_probed_and_reported(trained, rooms, console, tmp_path, capsys):
    folder = str(trained(**BLOCK, export_name="rooms_vit") / "encoder")
    assert info(folder, console, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["family"], told["patch_size"]) == ("rooms_vit", "timm", 14)
    assert {**facts(describe("vit_tiny_demo")), "name": "rooms_vit"} == told
    words = {"shards": rooms.shards, "store": str(tmp_path / "f.zarr"), "layers": ["norm"]}
    words |= {"pixels": [42, 56], "sets": rooms.sets, "orient": "scene"}
    extract(ExtractConfig(encoder=folder, **words), console)
    scores = str(tmp_path / "scores")
    probe(
        CorrespondenceConfig(
            store=words["store"],
            sets=rooms.sets,
            out=scores,
            encoder="rooms_vit",
            ranking=False,
            pictures=0,
            resamples=20,
        ),
        console,
    )
    report([scores], ReportConfig(out=str(tmp_path / "report")), console)
    assert "rooms_vit" in (tmp_path / "report" / "report.html").read_text()


def test_the_exported_patch_embedding_of_vggt_keeps_the_contract(trained, tmp_path):
    (tmp_path / "own.yaml").write_text(OWN)
    folder = trained(model=str(tmp_path / "own.yaml"), train_encoder=False) / "encoder"
    encoder = create(str(folder))
    check_encoder(encoder)
    model = strata.VGGT.from_pretrained(folder.parent / "model")
    own = {k: v for k, v in model.aggregator.patch_embed.state_dict().items() if k != "mask_token"}
    assert encoder.weights_digest() == state_digest(own)
    floor = create(str(folder), "random:0")
    assert floor.weights_digest() == create(str(folder), "random:0").weights_digest()
    assert floor.weights_digest() != encoder.weights_digest()


def test_an_export_is_trained_on_and_exported_again(trained, training, console, tmp_path):
    first = trained(**BLOCK, best="min:loss", val_scene="*/room_2")
    last, best = (describe(str(first / name)).name for name in ("encoder", "best_encoder"))
    assert (last, best) == ("vit_tiny_demo-run", "vit_tiny_demo-run-best")
    assert (
        create(str(first / "encoder")).weights_digest()
        == create(str(first / "best_encoder")).weights_digest()
    )
    second = trained(encoder=str(first / "encoder"), out=str(tmp_path / "more"))
    assert describe(str(second / "encoder")).name == "vit_tiny_demo-run-more"
    assert (second / "encoder" / "encoder.yaml").read_text().count("img_size") == 1


@pytest.mark.parametrize("words", [{"train_encoder": False}, {"freeze": ["*patch_embed*"]}])
def test_what_was_not_trained_is_not_exported(trained, words):
    out = trained(**{**BLOCK, **words})
    assert (out / "model").is_dir()
    assert not (out / "encoder").exists()


@pytest.mark.parametrize("name", ["dinov2_base", "a@b", "a/b", ""])
def test_a_name_must_be_free(training, console, name):
    with pytest.raises(ConfigError, match="export_name"):
        run(training(export_name=name), console)


def test_a_folder_that_is_no_encoder_says_so(trained, tmp_path):
    out = trained(**BLOCK)
    with pytest.raises(EncoderError, match=rf"encoder\.yaml[\s\S]*give encoder={out}/encoder"):
        describe(str(out))
    with pytest.raises(EncoderError, match="there is no such folder"):
        describe(str(out / "nowhere"))
    folder = out / "encoder"
    (folder / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"model\.safetensors is not there"):
        create(str(folder))
    whole = (folder / "encoder.yaml").read_text()
    for text in (whole.replace("patch_size", "patch"), "[", whole.replace("family: vit\n", "")):
        (folder / "encoder.yaml").write_text(text)
        with pytest.raises(EncoderError, match="does not say what the encoder is"):
            describe(str(folder))
    (folder / "encoder.yaml").unlink()
    assert not is_exported(str(folder))
