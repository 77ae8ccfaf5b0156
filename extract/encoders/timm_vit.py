"""One adapter for every timm vision transformer of the VisionTransformer and Eva families.

Layers, equal to timm's own up to rounding:

`patch_embed`     the sequence that enters block 0: position embedding, prefix tokens and any norm before
                  the blocks included (rotary embeddings act inside the blocks)
`block<k>`        raw output of block k, as `forward_intermediates(norm=False)` gives it
`block<k>.norm`   output of the block's `norm1`; in the usual pre-norm blocks the attention's input
`block<k>.keys`   the key part of the qkv projection with its bias, heads concatenated, before any
                  key norm and before rotary embedding
`block<k>.attn`   the attention branch after its output projection, before LayerScale and the residual
`block<k>.mlp`    the MLP branch after its last linear layer, before LayerScale and the residual
`norm`            the last block after the final norm, as `forward_features` gives it; models that
                  normalise after pooling instead have no final norm, and `norm` is their last block

Shapes: N = B V images, S = T + R C tokens of a sequence, D channels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ...errors import EncoderError
from ...store.layers import layer_order, resolve_layers
from .base import Encoder, EncoderInfo, FeatureMap, ViewBatch
from .image_size import token_grid
from .weights import state_digest

_TAPS = {"attn": "attn", "mlp": "mlp", "keys": "attn", "norm": "norm1"}  # tap -> the module it reads
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class TimmViT(Encoder):
    """A timm ViT, frozen. Weights stay float32; 16-bit dtypes compute under autocast.

    Args:
        model: a VisionTransformer or Eva (or a subclass) created with `dynamic_img_size=True`.
        info: what it declares; `registry.create` fills it from the model's pretrained config.

    Raises:
        EncoderError: the model was created for one image size only.
    """

    def __init__(self, model: nn.Module, info: EncoderInfo) -> None:
        if not getattr(model, "dynamic_img_size", False):
            raise EncoderError(
                f"{type(model).__name__} takes images of one size only.",
                where=info.name,
                why="views of several sizes and orientations go through one encoder",
                fix="create the model with dynamic_img_size=True",
            )
        self.info = info
        self._model: Any = model.eval().requires_grad_(False)
        self._device, self._dtype = next(model.parameters()).device, torch.float32

    @cached_property
    def _layers(self) -> tuple[str, ...]:
        names = ["patch_embed", "norm"]
        for k, block in enumerate(self._model.blocks):
            taps = [tap for tap, module in _TAPS.items() if hasattr(block, module)]
            names += [f"block{k}", *(f"block{k}.{tap}" for tap in taps)]
        return tuple(sorted(names, key=layer_order))

    def layers(self) -> tuple[str, ...]:
        return self._layers

    def width(self, layer: str) -> int:
        (name,) = resolve_layers((layer,), self._layers, self.info.depth)
        if not name.endswith(".keys"):
            return self._model.embed_dim
        return _key_projection(self._model.blocks[_block(name)].attn)[0].shape[0]

    def prefix_names(self) -> tuple[str, ...]:
        """`cls`, `dist`, `reg0`, `reg1`, ...: those that the model has, in the order of its sequence."""
        model = self._model
        named = [name for name in ("cls", "dist") if getattr(model, f"{name}_token", None) is not None]
        return (*named, *(f"reg{i}" for i in range(model.num_prefix_tokens - len(named))))

    @torch.inference_mode()
    def forward(self, batch: ViewBatch, layers: tuple[str, ...]) -> dict[str, FeatureMap]:
        wanted = resolve_layers(layers, self._layers, self.info.depth)
        grid, sets = token_grid(self.info, batch), batch.images.shape[:2]
        images = self._normalised(batch.images.flatten(0, 1))
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            sequences = self._run(images, wanted)
        return {layer: self._feature_map(sequences[layer], sets, grid) for layer in wanted}

    def weights_digest(self) -> str:
        return self._digest

    def to(self, device: str | torch.device, dtype: torch.dtype) -> TimmViT:
        if dtype not in _DTYPES:
            raise EncoderError(
                f"an encoder does not compute in {dtype}.",
                where=self.info.name,
                why=f"one of {', '.join(map(str, _DTYPES))} is expected",
                fix="use compute=float32, or compute=bfloat16 on a GPU",
            )
        self._device, self._dtype = torch.device(device), dtype
        self._model.to(self._device)
        return self

    @cached_property
    def _digest(self) -> str:
        return state_digest(self._model.state_dict())

    def _normalised(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> f32 on the encoder's device, by the model's mean and std."""
        mean, std = (
            torch.tensor(v, device=self._device)[:, None, None] for v in (self.info.mean, self.info.std)
        )
        return (images.to(self._device, torch.float32) - mean) / std

    def _run(self, images: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        """Sequences [N, S, D] of the wanted layers; the model stops at the deepest of them."""
        steps = 1 + max((self._depth_of(layer) for layer in wanted), default=-1)
        with _tapped(self._model.blocks, wanted) as sequences:
            for layer, sequence in islice(self._steps(images), steps):
                if layer in wanted:
                    sequences[layer] = sequence
        return sequences

    def _steps(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """patch_embed, every block and norm, each computed when it is asked for."""
        model = self._model
        embedded = model._pos_embed(model.patch_embed(images))
        sequence, rope = embedded if isinstance(embedded, tuple) else (embedded, None)
        sequence = model.norm_pre(sequence)
        yield "patch_embed", sequence
        per_block = getattr(model, "rope_mixed", False)  # learned rotary embeddings, one for each block
        for k, block in enumerate(model.blocks):
            if rope is None:
                sequence = block(sequence)
            else:
                sequence = block(sequence, rope=rope[k] if per_block else rope)
            yield f"block{k}", sequence
        yield "norm", model.norm(sequence)

    def _depth_of(self, layer: str) -> int:
        """Steps that come before the layer's own."""
        if layer == "patch_embed":
            return 0
        return self.info.depth + 1 if layer == "norm" else _block(layer) + 1

    def _feature_map(self, sequence: Tensor, sets: Sequence[int], grid: tuple[int, int]) -> FeatureMap:
        names = self.prefix_names()
        by_view = sequence.unflatten(0, tuple(sets))  # [B, V, S, D]
        tokens = by_view[:, :, len(names) :].unflatten(2, grid)  # [B, V, R, C, D]
        return FeatureMap(
            tokens=tokens, prefix=by_view[:, :, : len(names)] if names else None, prefix_names=names
        )


@contextmanager
def _tapped(blocks: nn.ModuleList, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A dict that the wanted taps fill while the blocks run."""
    taken: dict[str, Any] = {}
    handles = []
    for layer in wanted:
        tap = layer.partition(".")[2]
        if tap:
            module = getattr(blocks[_block(layer)], _TAPS[tap])
            handles.append(module.register_forward_hook(_taker(taken, layer, tap)))
    try:
        yield taken
    finally:
        for handle in handles:
            handle.remove()


def _taker(taken: dict[str, Any], layer: str, tap: str) -> Callable[..., None]:
    def take(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        taken[layer] = linear(args[0], *_key_projection(module)) if tap == "keys" else output

    return take


def _key_projection(attention: Any) -> tuple[Tensor, Tensor | None]:
    """Weight [D, D] and bias [D] that make keys of the attention's input.

    EVA keeps its biases beside the fused projection, where the keys' is always zero.
    """
    if attention.qkv is None:
        return attention.k_proj.weight, attention.k_proj.bias
    bias = attention.qkv.bias
    return attention.qkv.weight.chunk(3)[1], None if bias is None else bias.chunk(3)[1]


def _block(layer: str) -> int:
    """11 of `block11.attn`."""
    return int(re.sub(r"\D", "", layer))
