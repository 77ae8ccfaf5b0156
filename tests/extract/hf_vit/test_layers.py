"""Encoders of transformers equal the library: layers, taps and prefixes of every architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from strata.errors import LayerError
from strata.extract.encoders.base import ViewBatch
from strata.extract.encoders.hf_vit import HfViT
from strata.testing import check_encoder

from ..compared import close
from .small_models import (
    FINAL_NORMS,
    GRIDS,
    IMAGENET,
    NORMALISATION,
    batch_of,
    expected,
    library,
    loaded,
    normalised,
)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_equals_the_library(name: str, encoder: HfViT, grid: tuple[int, int]):
    batch = batch_of(grid)
    states, last = expected(name, batch)
    layers = {"patch_embed": states[0], **{f"block{k}": states[k + 1] for k in range(3)}, "norm": last}
    maps, prefixes = encoder.forward(batch, tuple(layers)), len(encoder.prefix_names())
    for layer, sequence in layers.items():
        close(maps[layer].tokens[0], sequence[:, prefixes:].unflatten(1, grid))
        prefix = maps[layer].prefix
        assert (prefix is None) == (prefixes == 0)
        if prefix is not None:
            close(prefix[0], sequence[:, :prefixes])


def test_keeps_the_contract(encoder: HfViT):
    check_encoder(encoder)


def test_is_called_like_its_folder_and_says_what_it_is(name: str, encoder: HfViT):
    info = encoder.info
    assert (info.name, info.patch_size, info.depth, info.width) == (f"hf:{name}", 14, 3, 48)
    assert (info.mean, info.std) == NORMALISATION.get(name, IMAGENET)


def test_a_bright_patch_moves_its_own_token_in_every_block(encoder: HfViT):
    batch, layers = batch_of((3, 5), views=1), ("patch_embed", "block0", "block2")
    brighter = ViewBatch(images=batch.images.clone(), grid=batch.grid)
    brighter.images[..., 14:28, 42:56] += 1
    before, after = encoder.forward(batch, layers), encoder.forward(brighter, layers)
    for layer in layers:
        moved = (after[layer].tokens - before[layer].tokens)[0, 0].norm(dim=-1)
        assert divmod(int(moved.argmax()), 5) == (1, 3)


def test_branches_add_up_to_the_block(encoder: HfViT):
    layers = ("block0", "block1.attn", "block1.mlp", "block1")
    before, attn, mlp, after = (m.tokens for m in encoder.forward(batch_of((3, 5)), layers).values())
    block: Any = encoder.blocks[1]
    scales = [getattr(getattr(block, f"layer_scale{i}", None), "lambda1", 1.0) for i in (1, 2)]
    close(before + scales[0] * attn + scales[1] * mlp, after)


def test_norm_tap_is_the_block_after_the_final_norm(encoder: HfViT):
    maps = encoder.forward(batch_of((3, 5)), ("block1", "block1.norm", "block2.norm", "norm"))
    final = next(m for n, m in encoder.module.named_children() if n in FINAL_NORMS)
    close(final(maps["block1"].tokens), maps["block1.norm"].tokens)
    assert torch.equal(maps["block2.norm"].tokens, maps["norm"].tokens)


TAPPED = {"attn": ("attention", "self_attn"), "mlp": ("mlp",), "keys": ("k_proj", "key")}


def test_taps_are_what_the_librarys_modules_put_out(name: str, encoder: HfViT):
    batch, model, out, start = batch_of((3, 5)), library(name), {}, len(encoder.prefix_names())
    block = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 3)[1]
    for tap, modules in TAPPED.items():
        module = next(m for n, m in block.named_modules() if n.rpartition(".")[2] in modules)
        module.register_forward_hook(lambda *args, tap=tap: out.update({tap: args[2]}))
    options = {} if name.startswith(("dinov2", "registers")) else {"interpolate_pos_encoding": True}
    if name == "mae":
        model.config.mask_ratio, options["noise"] = 0.0, torch.arange(15.0).expand(2, -1)
    with torch.no_grad():
        model(normalised(name, batch), **options)
    for tap in TAPPED:
        own = out[tap][0] if isinstance(out[tap], tuple) else out[tap]
        close(
            encoder.forward(batch, (f"block1.{tap}",))[f"block1.{tap}"].tokens[0].flatten(1, 2),
            own[:, start:],
        )
    assert encoder.width("block1.keys") == 48


@pytest.mark.parametrize(
    ("layers", "calls"),
    [((), 0), (("patch_embed",), 0), (("block0",), 1), (("block0", "block1.keys"), 2), (("norm",), 3)],
)
def test_stops_after_the_last_wanted_layer(encoder: HfViT, layers: tuple[str, ...], calls: int):
    ran = []
    handles = [block.register_forward_hook(lambda *_: ran.append(1)) for block in encoder.blocks]
    assert set(encoder.forward(batch_of((2, 2)), layers)) == set(layers)
    assert len(ran) == calls
    assert len(handles) == 3


def test_prefix_names(saved: Callable[[str], Path]):
    kinds = ("dinov2", "registers", "siglip", "ijepa")
    names = {name: loaded(saved(name)).prefix_names() for name in kinds}
    assert names == {
        "dinov2": ("cls",),
        "registers": ("cls", "reg0", "reg1"),
        "siglip": (),
        "ijepa": (),
    }


def test_layers_that_are_not_there(encoder: HfViT):
    for layer in ("block3", "block0.values"):
        with pytest.raises(LayerError):
            encoder.forward(batch_of((2, 2)), (layer,))
        with pytest.raises(LayerError):
            encoder.width(layer)


def test_is_frozen_and_autocasts_16_bit(encoder: HfViT):
    batch = batch_of((3, 4))
    full = encoder.forward(batch, ("block2", "block2.keys"))
    half = encoder.to("cpu", torch.bfloat16).forward(batch, ("block2", "block2.keys"))
    assert half["block2.keys"].tokens.dtype == torch.bfloat16
    assert {(p.dtype, p.requires_grad) for p in encoder._model.parameters()} == {(torch.float32, False)}
    assert not any(module.training for module in encoder._model.modules())
    error = (half["block2"].tokens - full["block2"].tokens).norm() / full["block2"].tokens.norm()
    assert 0 < error < 0.05
