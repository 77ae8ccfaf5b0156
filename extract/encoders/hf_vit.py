"""One adapter for the vision transformers of Hugging Face's transformers.

DINOv2 with and without registers, DINOv3, CLIP, MAE, the plain ViT, I-JEPA and SigLIP. The layers of
`blocks.py` are the library's own: `block<k>` is `hidden_states[k + 1]`, `patch_embed` is
`hidden_states[0]`, and `norm` is `last_hidden_state`. CLIP is the exception: it normalises nothing but the
pooled token, so its `last_hidden_state` is the raw last block, and `norm` is `post_layernorm` over all its
tokens.

Positions are interpolated by the library's own rule. MAE sees every token, in the order of the image:
its shuffling is turned off, not undone.

Shapes: N = B V images, S = T + R C tokens of a sequence, D channels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...store.key import canonical_json
from ...store.layers import resolve_layers
from .base import EncoderInfo, no_overlap
from .blocks import BlockEncoder, block_number
from .hf_names import plain_state

# What the families call the same thing.
_ATTENTION, _KEYS = ("attention", "self_attn"), ("k_proj", "key")
_FINAL_NORM = ("layernorm", "post_layernorm", "norm")

# Settings that change the numbers, and that no weight tells.
_SETTINGS = ("hidden_act", "layer_norm_eps", "num_attention_heads")
# Likewise, of families that have them; others keep the digest that they have without.
_SETTINGS_OF_SOME = ("rope_theta",)


class HfViT(BlockEncoder):
    """A vision transformer of transformers.

    Args:
        model: of a class that `hf_models.FAMILIES` lists; of MAE with `mask_ratio=0`.
        info: what it declares.
    """

    def __init__(self, model: nn.Module, info: EncoderInfo) -> None:
        super().__init__(model, info)
        lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
        self._blocks = next(found for found in lists if len(found) == info.depth)
        self._options = _embedding_options(self._model.embeddings)

    @property
    def blocks(self) -> nn.ModuleList:
        return self._blocks

    def width(self, layer: str) -> int:
        (name,) = resolve_layers((layer,), self._layers, self.info.depth)
        if not name.endswith(".keys"):
            return self._model.config.hidden_size
        keys: Any = self.tapped(self.blocks[block_number(name)])["keys"]
        return keys.out_features

    def prefix_names(self) -> tuple[str, ...]:
        """`cls` where the model has one, then `reg0`, `reg1`, ..., in the order of its sequence."""
        embeddings, registers = self._model.embeddings, getattr(self._model.config, "num_register_tokens", 0)
        has_cls = any(hasattr(embeddings, name) for name in ("cls_token", "class_embedding"))
        return (*(("cls",) if has_cls else ()), *(f"reg{i}" for i in range(registers)))

    def state(self) -> Mapping[str, Tensor]:
        """The weights, under names that no release of the library changes, and the settings beside them."""
        config, info = self._model.config, self.info
        settings = {name: getattr(config, name, None) for name in _SETTINGS}
        settings |= {name: getattr(config, name) for name in _SETTINGS_OF_SOME if hasattr(config, name)}
        text = canonical_json({**settings, "mean": info.mean, "std": info.std})
        return {**plain_state(self._model.state_dict()), "settings": torch.tensor(list(text.encode()))}

    def embedded(self, images: Tensor) -> tuple[Tensor, Callable[[int, Tensor], Tensor]]:
        model, options = self._model, dict(self._options)
        if "noise" in options:
            # MAE sorts its tokens by noise before it drops the last ones: rising noise leaves them in place.
            patch, step = self.info.patch_size, self.info.stride or self.info.patch_size
            rows, cols = ((side - patch) // step + 1 for side in images.shape[-2:])
            options["noise"] = torch.arange(rows * cols, device=images.device).expand(len(images), -1)
        embedded = model.embeddings(images, **options)
        sequence = embedded[0] if isinstance(embedded, tuple) else embedded
        sequence = model.pre_layrnorm(sequence) if hasattr(model, "pre_layrnorm") else sequence
        if not hasattr(model, "rope_embeddings"):
            return sequence, self._run_block
        return sequence, partial(self._run_block, position_embeddings=model.rope_embeddings(images))

    def embed_every(self, stride: int) -> None:
        embeddings = self._model.embeddings
        projections = [module for module in embeddings.modules() if isinstance(module, nn.Conv2d)]
        interpolate = getattr(type(embeddings), "interpolate_pos_encoding", None)
        if len(projections) != 1 or interpolate is None:
            raise no_overlap(self.info, stride)
        projections[0].stride = (stride, stride)
        patch = self.info.patch_size

        def interpolated(patches: Tensor, height: int, width: int) -> Tensor:
            # The library counts patches side by side; so it is told of the image that has as many.
            rows, cols = ((side - patch) // stride + 1 for side in (height, width))
            return interpolate(embeddings, patches, rows * patch, cols * patch)

        embeddings.interpolate_pos_encoding = interpolated

    def final(self, sequence: Tensor) -> Tensor:
        return _first(self._model, _FINAL_NORM)(sequence)

    def tapped(self, block: Any) -> Mapping[str, nn.Module]:
        attention = _first(block, _ATTENTION)
        keys = next(module for name, module in attention.named_modules() if name.endswith(_KEYS))
        return {"attn": attention, "mlp": block.mlp, "keys": keys}

    def taken(self, tap: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor:
        return output[0] if isinstance(output, tuple) else output

    def _run_block(self, k: int, sequence: Tensor, **positions: Any) -> Tensor:
        block = self.blocks[k]
        # CLIP and SigLIP, which share their blocks with text towers, want to hear that nothing is masked.
        output = block(sequence, None) if hasattr(block, "self_attn") else block(sequence, **positions)
        return output[0] if isinstance(output, tuple) else output


def _embedding_options(embeddings: nn.Module) -> dict[str, Any]:
    """Arguments beyond the images; those without `interpolate_pos_encoding` always interpolate."""
    known = inspect.signature(embeddings.forward).parameters
    return {
        name: value for name, value in (("interpolate_pos_encoding", True), ("noise", None)) if name in known
    }


def _first(module: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """The submodule that goes by the first of these names."""
    return next(getattr(module, name) for name in names if hasattr(module, name))
