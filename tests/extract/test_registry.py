"""Encoders by name: presets, oracles, timm names, entry points, and where their weights come from."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from strata.errors import EncoderError
from strata.extract.encoders.base import ViewBatch
from strata.extract.encoders.presets import load_preset, preset_names
from strata.extract.encoders.registry import create, describe, encoder_names
from strata.extract.encoders.timm_models import timm_info
from strata.extract.encoders.timm_vit import TimmViT
from strata.extract.encoders.weights import state_digest

TEST_VIT = "test_vit.r160_in1k"  # timm's own model for tests: 0.4 million parameters
TIMM_PRESETS = [name for name in preset_names() if load_preset(name).family == "timm"]
BLUR = """
from strata.extract.encoders.base import Encoder, EncoderInfo

class Blur(Encoder):
    info = EncoderInfo(name="{name}", patch_size=16, depth=0)
    def __init__(self, weights): self.weights = weights
    def width(self, layer): return 3
    def layers(self): return ("norm",)
    def forward(self, batch, layers): return {{}}
    def weights_digest(self): return "0" * 64
    def to(self, device, dtype): return self
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a module and its entry points where Python finds installed packages."""

    def install(source: str, **points: str) -> None:
        (tmp_path / "blur_package.py").write_text(source)
        info = tmp_path / "blur_package-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: blur-package\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[strata.encoders]", *lines]))
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()

    yield install
    sys.modules.pop("blur_package", None)


def vit(name: str, weights: str) -> TimmViT:
    encoder = create(name, weights)
    assert isinstance(encoder, TimmViT)
    return encoder


def tiny_state() -> dict[str, torch.Tensor]:
    return vit("vit_tiny_demo", "random:5")._model.state_dict()


def test_names():
    names = encoder_names()
    assert names == sorted(names)
    sizes = {f"dinov2_{size}{reg}" for size in ("small", "base", "large", "giant") for reg in ("", "_reg")}
    oracles = {f"oracle_{kind}" for kind in ("world", "camera", "rgb", "position", "constant")}
    assert {*sizes, *oracles, "dinov3_small", "dinov3_base", "dinov3_large", "vit_tiny_demo"} <= set(names)


def test_describing_imports_no_torch():
    code = (
        "import sys; from strata.extract.encoders.registry import *\n"
        "assert [describe(name) for name in encoder_names()]\n"
        "print([m for m in ('torch', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", TIMM_PRESETS)
def test_presets_say_what_timm_says(name):
    preset = load_preset(name)
    built = timm_info(str(preset.model))
    assert built is not None
    assert built.name == preset.model
    assert replace(built, name=name) == preset.info


def test_demo_preset_says_what_it_builds():
    encoder = vit("vit_tiny_demo", "random:0")
    assert len(encoder._model.blocks) == encoder.info.depth == 4
    assert encoder._model.patch_embed.feat_ratio() == encoder.info.patch_size == 14
    assert encoder.width("block3") == encoder.width("block0.keys") == 64


@pytest.mark.parametrize("name", ["test_vit", "timm:test_vit", f"timm:{TEST_VIT}"])
def test_timm_names_with_and_without_tag_are_one_encoder(name):
    assert describe(name) == describe(TEST_VIT)
    assert describe(name).name == TEST_VIT
    assert describe(name).mean == (0.5, 0.5, 0.5)
    assert create(name, "random:0").info == describe(name)


def test_random_weights_are_decided_by_the_seed():
    before = torch.get_rng_state()
    first, again, other = (create("vit_tiny_demo", f"random:{seed}").weights_digest() for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.pth"])
def test_weights_from_a_file(tmp_path, file):
    path, state = tmp_path / file, tiny_state()
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"model": {**state, "head.weight": torch.zeros(10, 64)}}, path)
    before = torch.get_rng_state()
    assert create("vit_tiny_demo", str(path)).weights_digest() == state_digest(state)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_in_the_format_of_dinov2(tmp_path):
    """Meta's checkpoints: other names for the registers, and one position embedding for cls too."""
    name = "vit_small_patch14_reg4_dinov2"
    state = vit(name, "random:0")._model.state_dict()
    meta = {key: tensor for key, tensor in state.items() if key not in ("reg_token", "pos_embed")}
    meta["pos_embed"] = torch.cat((torch.ones(1, 1, 384), state["pos_embed"]), dim=1)
    meta["cls_token"] = state["cls_token"] - 1
    torch.save(
        {**meta, "register_tokens": state["reg_token"], "mask_token": torch.zeros(1, 384)}, tmp_path / "w.pth"
    )
    loaded = vit(name, str(tmp_path / "w.pth"))._model.state_dict()
    torch.testing.assert_close(loaded, state, atol=1e-6, rtol=0)


def test_weights_of_another_architecture(tmp_path):
    save_file({**tiny_state(), "extra": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(EncoderError, match="do not fit") as caught:
        create("vit_tiny_demo", str(tmp_path / "more.safetensors"))
    assert caught.value.why == "1 unexpected: extra"
    with pytest.raises(EncoderError) as caught:
        create("test_vit", str(tmp_path / "more.safetensors"))
    assert "missing" in caught.value.why
    assert "another shape" in caught.value.why


def test_hub_out_of_reach_names_the_command(offline):
    with pytest.raises(EncoderError) as caught:
        create("dinov2_small")
    folder = "vit_small_patch14_dinov2.lvd142m"
    assert f"hf download timm/{folder} model.safetensors --local-dir {folder}" in caught.value.fix
    assert caught.value.fix.endswith(
        f"weights={folder}/model.safetensors; weights=random:0 needs no download"
    )
    with pytest.raises(EncoderError) as caught:
        create("vggt")
    assert "hf download facebook/VGGT-1B model.safetensors --local-dir VGGT-1B" in caught.value.fix
    assert caught.value.fix.endswith("give weights=VGGT-1B; weights=random:0 needs no download")


def test_what_was_fetched_elsewhere_is_taken_as_the_error_says(offline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EncoderError) as caught:
        create("test_vit")
    model: Any = timm.create_model("test_vit", pretrained=False)
    (tmp_path / "test_vit.r160_in1k").mkdir()
    save_file(model.state_dict(), tmp_path / "test_vit.r160_in1k" / "model.safetensors")
    weights = re.search(r"give weights=(\S+);", caught.value.fix)
    assert weights is not None
    assert create("test_vit", weights[1]).info.name == "test_vit.r160_in1k"


def test_hub_cache_needs_no_network(offline):
    model: Any = timm.create_model("test_vit", pretrained=False)
    repository = offline / "models--timm--test_vit.r160_in1k"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    save_file(model.state_dict(), repository / "snapshots" / "abc" / "model.safetensors")
    encoder = create("test_vit")
    images = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        model.eval().set_input_size((32, 48))
        expected = model.forward_features((images - 0.5) / 0.5)
    tokens = encoder.forward(ViewBatch(images=images[None], grid=(2, 3)), ("norm",))["norm"].tokens
    torch.testing.assert_close(tokens[0].flatten(1, 2), expected[:, 1:], atol=1e-5, rtol=1e-5)


def test_no_weights_on_the_hub():
    with pytest.raises(EncoderError, match="vit_tiny_demo has no weights on the hub"):
        create("vit_tiny_demo")


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("dinov2_bse", "dinov2_base"),
        ("oracle_wrld", "oracle_world"),
        ("vit_small_patch14_dinvo2", "vit_small_patch14_dinov2"),
        ("timm:vit_small_patch14_dinvo2", "vit_small_patch14_dinov2"),
        ("vit_small_patch14_dinov2.lvd124m", "vit_small_patch14_dinov2.lvd142m"),
    ],
)
@pytest.mark.parametrize("call", [describe, create])
def test_misspelled_names(call, name, fix):
    with pytest.raises(EncoderError) as caught:
        call(name)
    assert fix in caught.value.fix


@pytest.mark.parametrize("name", ["dinov3_huge", "vit_huge_patch16_dinov3.lvd1689m"])
def test_a_size_that_was_never_published_names_those_that_were(name):
    with pytest.raises(EncoderError, match="no encoder is called") as caught:
        create(name)
    assert "huge_plus" in caught.value.fix


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224"])
def test_models_that_are_no_vit(name):
    with pytest.raises(EncoderError, match="no vision transformer"):
        describe(name)


def test_oracles_have_no_weights():
    assert create("oracle_rgb", "hub").info == describe("oracle_rgb")
    with pytest.raises(EncoderError, match="no weights to load"):
        create("oracle_rgb", "weights.pth")


def test_third_party_encoder(install):
    install(BLUR.format(name="blur"), blur="blur_package:Blur")
    assert "blur" in encoder_names()
    assert "blur_package" not in sys.modules
    assert describe("blur").patch_size == 16
    assert vars(create("blur", "random:3"))["weights"] == "random:3"


def test_third_party_that_calls_itself_otherwise(install):
    install(BLUR.format(name="smear"), blur="blur_package:Blur")
    with pytest.raises(EncoderError, match="calls itself smear"):
        create("blur")


def test_third_party_that_does_not_import(install):
    install("import no_such_module", blur="blur_package:Blur")
    assert "blur" in encoder_names()
    for call in (describe, create):
        with pytest.raises(EncoderError, match="does not import") as caught:
            call("blur")
        assert "no_such_module" in caught.value.why


def test_third_party_without_a_declaration(install):
    install("def make(weights): ...", blur="blur_package:make")
    with pytest.raises(EncoderError, match="does not say what it is"):
        describe("blur")


def test_third_parties_cannot_take_a_name(install):
    install(BLUR.format(name="oracle_rgb"), oracle_rgb="blur_package:Blur")
    assert describe("oracle_rgb").patch_size == 14
