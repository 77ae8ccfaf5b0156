"""Any registered encoder in the place of the patch embedding.

The encoder is created when it is first needed: never, where stored tokens stand in for it. It normalises
images itself. A frozen one is no part of the model: not of its parameters, its state, or its graph.

Shapes: B sets, V views, R C token rows and columns, D channels, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ....errors import EncoderError
from ..base import Encoder, EncoderInfo, ViewBatch
from ..blocks import BlockEncoder
from .config import RegisteredConfig


class RegisteredPatchEmbed(nn.Module):
    """Tokens of one layer of an encoder.

    Args:
        config: which encoder and layer, and whether it is frozen.
        encoder: the encoder itself, if it is there already.

    Raises:
        EncoderError: it is unknown, needs geometry, or is to be trained and cannot be.
    """

    def __init__(self, config: RegisteredConfig, encoder: Encoder | None = None) -> None:
        super().__init__()
        self.config, self._encoder = config, encoder
        self._place: tuple[torch.device, torch.dtype] | None = None
        if config.patch_size is None or config.embed_dim is None:
            self._check_needs()
        self.patch_size = config.patch_size or self._info().patch_size
        self.width = config.embed_dim or self._declared_width() or self.encoder.width(config.layer)
        if not config.frozen:
            self.model = _trainable(self.encoder)

    @property
    def encoder(self) -> Encoder:
        """The encoder, created now if it has not been."""
        if self._encoder is None:
            from ..registry import create

            self._encoder = create(self.config.name, self.config.weights)
            self._check_same(self._encoder)
        return self._encoder

    @property
    def built(self) -> bool:
        """Whether the encoder has been created."""
        return self._encoder is not None

    def forward(self, images: Tensor) -> Tensor:
        """Patch tokens [B, V, R C, D] of images [B, V, 3, H, W] in [0, 1]."""
        tokens = self._tokens(images)
        # What was computed in inference mode cannot enter a graph; a copy can.
        if tokens.is_inference() and not torch.is_inference_mode_enabled():
            tokens = tokens.clone()
        return tokens.flatten(2, 3)

    # Encoders run hooks and modes of their own, which a compiler need not understand.
    @torch.compiler.disable()
    def _tokens(self, images: Tensor) -> Tensor:
        rows, cols = (side // self.patch_size for side in images.shape[-2:])
        encoder, layers = self._placed(images), (self.config.layer,)
        batch = ViewBatch(images=images, grid=(rows, cols))
        traced = not self.config.frozen and torch.is_grad_enabled()
        run = encoder.traced if traced and isinstance(encoder, BlockEncoder) else encoder.forward
        (features,) = run(batch, layers).values()
        return features.tokens

    def _placed(self, images: Tensor) -> Encoder:
        """The encoder where the images are, computing as autocast says."""
        device, dtype = images.device, torch.float32
        if torch.is_autocast_enabled(device.type):
            asked = torch.get_autocast_dtype(device.type)
            known = str(asked).removeprefix("torch.") in self.encoder.info.computes
            dtype = asked if known else dtype
        if (device, dtype) != self._place:
            self._encoder, self._place = self.encoder.to(device, dtype), (device, dtype)
        return self.encoder

    def _check_same(self, encoder: Encoder) -> None:
        """The config may be an old one, and speak of other weights."""
        config, digest = self.config, self.config.digest
        differs = [
            f"{name} {wanted} in the config, {found} of the encoder"
            for name, wanted, found in (
                ("patch_size", config.patch_size, encoder.info.patch_size),
                ("embed_dim", config.embed_dim, encoder.width(config.layer)),
                ("digest", digest, digest and encoder.weights_digest()),
            )
            if wanted is not None and wanted != found
        ]
        if differs:
            raise EncoderError(
                f"{config.name} is not the encoder that this VGGT was made with.",
                where="encoder",
                why="\n".join(differs),
                fix="give the weights of that time as encoder={'name': ..., 'weights': PATH}, or encoder=",
            )

    def _info(self) -> EncoderInfo:
        if self._encoder is not None:
            return self._encoder.info
        from ..registry import describe

        return describe(self.config.name)

    def _declared_width(self) -> int:
        """0 where only the encoder itself can tell: a tap of a block may be wider or narrower."""
        return 0 if "." in self.config.layer else self._info().width

    def _check_needs(self) -> None:
        needs = self._info().needs
        if needs:
            raise EncoderError(
                f"{self.config.name} cannot be the patch embedding of VGGT.",
                where="encoder",
                why=f"it needs {' and '.join(sorted(needs))}, and VGGT looks at images alone",
                fix="extract its tokens, and train from the store (source=store) or give them as tokens=",
            )


def _trainable(encoder: Encoder) -> nn.Module:
    if not isinstance(encoder, BlockEncoder):
        raise EncoderError(
            f"{encoder.info.name} cannot be trained.",
            where="encoder",
            why="only encoders of blocks, those of timm and of transformers, let gradients through",
            fix="leave it frozen: without train_encoder=true, or with frozen=True in a config",
        )
    return encoder.module.requires_grad_(True)
