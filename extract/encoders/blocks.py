"""Encoders that are a sequence of blocks over one sequence of tokens: what all adapters share.

Layers:

`patch_embed`     the sequence that enters block 0: position embedding, prefix tokens and any norm before
                  the blocks included (rotary embeddings act inside the blocks)
`block<k>`        raw output of block k
`block<k>.norm`   the block's output after the model's final norm, as `norm` is of the last
`block<k>.keys`   the attention's keys with their bias, heads concatenated, before any key norm and
                  before rotary embedding
`block<k>.attn`   the attention branch after its output projection, before LayerScale and the residual
`block<k>.mlp`    the MLP branch after its last linear layer, before LayerScale and the residual
`norm`            the last block after the final norm; without a final norm, the last block

Shapes: B sets, V views, N = B V images, S = T + R C tokens of a sequence, D channels.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ...store.layers import layer_order, resolve_layers
from .base import Encoder, EncoderInfo, FeatureMap, ViewBatch, no_overlap
from .digest_cache import cached_digest
from .image_size import overlapping, token_grid
from .weights import state_digest


class BlockEncoder(Encoder):
    """A frozen model of blocks. Weights stay float32; 16-bit dtypes compute under autocast.

    A subclass says where the blocks are (`blocks`), what runs before and after them (`embedded`,
    `final`), what the taps read (`tapped`, `taken`), and how wide a layer is (`width`).
    """

    def __init__(self, model: nn.Module, info: EncoderInfo) -> None:
        self.info = info
        self._model: Any = model.eval().requires_grad_(False)
        self._device, self._dtype = next(model.parameters()).device, torch.float32
        self._file: Path | None = None

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The blocks in order."""

    @abstractmethod
    def embedded(self, images: Tensor) -> tuple[Tensor, Callable[[int, Tensor], Tensor]]:
        """The sequence [N, S, D] that enters block 0, and the function that runs block k on a sequence.

        Args:
            images: [N, 3, H, W] f32, normalised, on the encoder's device.
        """

    @abstractmethod
    def final(self, sequence: Tensor) -> Tensor:
        """The last block's output [N, S, D] after the final norm."""

    @abstractmethod
    def tapped(self, block: Any) -> Mapping[str, nn.Module]:
        """By tap (attn, mlp, keys), the module of the block that it reads."""

    def embed_every(self, stride: int) -> None:
        """Make `embedded` embed a patch every `stride` pixels, and interpolate positions to that grid."""
        raise no_overlap(self.info, stride)

    def taken(self, tap: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor:
        """What a tap takes, [N, S, D], when its module has run."""
        return output

    def state(self) -> Mapping[str, Tensor]:
        """The tensors that decide the features, by name."""
        return self._model.state_dict()

    @cached_property
    def _layers(self) -> tuple[str, ...]:
        names = ["patch_embed", "norm"]
        for k, block in enumerate(self.blocks):
            names += [f"block{k}", f"block{k}.norm", *(f"block{k}.{tap}" for tap in self.tapped(block))]
        return tuple(sorted(names, key=layer_order))

    def layers(self) -> tuple[str, ...]:
        return self._layers

    def overlap(self, stride: int) -> BlockEncoder:
        info = overlapping(self.info, stride)
        if info != self.info:
            self.embed_every(stride)
        self.info = info
        return self

    @property
    def module(self) -> nn.Module:
        """The model itself, for those who train it as a part of theirs; `forward` never does."""
        return self._model

    @torch.inference_mode()
    def forward(self, batch: ViewBatch, layers: tuple[str, ...]) -> dict[str, FeatureMap]:
        return self.traced(batch, layers)

    def traced(self, batch: ViewBatch, layers: tuple[str, ...]) -> dict[str, FeatureMap]:
        """As `forward`, with a graph where gradients are on and the model's weights want them."""
        wanted = resolve_layers(layers, self._layers, self.info.depth)
        grid, sets = token_grid(self.info, batch), batch.images.shape[:2]
        images = self._normalised(batch.images.flatten(0, 1))
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            sequences = self._run(images, wanted)
        return {layer: self._feature_map(sequences[layer], sets, grid) for layer in wanted}

    def weights_digest(self) -> str:
        return self._digest

    def to(self, device: str | torch.device, dtype: torch.dtype) -> BlockEncoder:
        self.info.check_computes(dtype)
        self._device, self._dtype = torch.device(device), dtype
        self._model.to(self._device)
        return self

    def filled_from(self, file: Path) -> Self:
        """The encoder itself, whose digest is remembered with the file that its weights came from."""
        self._file = file
        return self

    @cached_property
    def _digest(self) -> str:
        state = self.state()
        if self._file is None:
            return state_digest(state)
        return cached_digest(self._file, state, lambda: state_digest(state))

    def _normalised(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> f32 on the encoder's device, by the model's mean and std."""
        mean, std = (
            torch.tensor(v, device=self._device)[:, None, None] for v in (self.info.mean, self.info.std)
        )
        return (images.to(self._device, torch.float32) - mean) / std

    def _run(self, images: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        """Sequences [N, S, D] of the wanted layers; the model stops at the deepest of them."""
        steps = 1 + max((self._depth_of(layer) for layer in wanted), default=-1)
        with self._tapping(wanted) as sequences:
            for layer, sequence in islice(self._steps(images), steps):
                if layer in wanted:
                    sequences[layer] = sequence
                if f"{layer}.norm" in wanted:
                    sequences[f"{layer}.norm"] = self.final(sequence)
        return sequences

    def _steps(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """patch_embed, every block and norm, each computed when it is asked for."""
        sequence, run_block = self.embedded(images)
        yield "patch_embed", sequence
        for k in range(len(self.blocks)):
            sequence = run_block(k, sequence)
            yield f"block{k}", sequence
        yield "norm", self.final(sequence)

    def _depth_of(self, layer: str) -> int:
        """Steps that come before the layer's own."""
        if layer == "patch_embed":
            return 0
        return self.info.depth + 1 if layer == "norm" else block_number(layer) + 1

    def _feature_map(self, sequence: Tensor, sets: Sequence[int], grid: tuple[int, int]) -> FeatureMap:
        names = self.prefix_names()
        by_view = sequence.unflatten(0, tuple(sets))  # [B, V, S, D]
        tokens = by_view[:, :, len(names) :].unflatten(2, grid)  # [B, V, R, C, D]
        return FeatureMap(
            tokens=tokens, prefix=by_view[:, :, : len(names)] if names else None, prefix_names=names
        )

    @contextmanager
    def _tapping(self, wanted: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """A dict that the wanted taps fill while the blocks run."""
        taken: dict[str, Tensor] = {}
        handles = []
        for layer in wanted:
            tap = layer.partition(".")[2]
            if tap and tap != "norm":
                module = self.tapped(self.blocks[block_number(layer)])[tap]
                handles.append(module.register_forward_hook(self._taker(taken, layer, tap)))
        try:
            yield taken
        finally:
            for handle in handles:
                handle.remove()

    def _taker(self, taken: dict[str, Tensor], layer: str, tap: str) -> Callable[..., None]:
        def take(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            taken[layer] = self.taken(tap, module, args, output)

        return take


def block_number(layer: str) -> int:
    """11 of `block11.attn`."""
    return int(re.sub(r"\D", "", layer))
