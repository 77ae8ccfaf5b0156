"""The encoder contract: what goes in, what comes out, what an encoder must say about itself.

Shapes: B sets, V views, R C token rows and columns, T prefix tokens, D channels, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...errors import EncoderError
from ...store.key import Size, pixels_of_grid

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewBatch:
    """What an encoder sees. Fields beyond `images` are there only if its `needs` name them.

    Attributes:
        images: [B, V, 3, H, W] in [0, 1], not normalised.
        token_point_world: [B, V, R, C, 3] world coordinates of the token points, NaN = none.
        depth_m: [B, V, H, W] z-depth of the preprocessed view, 0 = none.
        K_px: [B, V, 3, 3] f64 intrinsics of the preprocessed view.
        cam_from_world: [B, V, 4, 4] f64.
        scene_scale_m: [B] median positive depth of the scene.
        grid: (R, C).
    """

    images: torch.Tensor
    grid: tuple[int, int]
    token_point_world: torch.Tensor | None = None
    depth_m: torch.Tensor | None = None
    K_px: torch.Tensor | None = None
    cam_from_world: torch.Tensor | None = None
    scene_scale_m: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureMap:
    """One layer's output.

    Attributes:
        tokens: [B, V, R, C, D], row-major: tokens[..., r, c, :] looks at cell (r, c) of the image.
        prefix: [B, V, T, D] tokens that look at the whole image, or None.
        prefix_names: what they are, such as ("cls", "reg0", "reg1").
    """

    tokens: torch.Tensor
    prefix: torch.Tensor | None = None
    prefix_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EncoderInfo:
    """What an encoder declares, before any weight is loaded.

    Attributes:
        name: registered name.
        patch_size: pixels per token side (an encoder without patches says which it wants to see).
        stride: pixels between neighbouring tokens where its patches were made to overlap; None = a patch.
        depth: number of blocks; 0 = the one layer `norm`.
        width: channels of a block's output, for `strata encoders ls`; 0 = not declared.
        mean, std: normalisation that the encoder itself applies to images in [0, 1].
        context: `view` (each view alone) or `set`.
        needs: fields of `ViewBatch` beyond images, e.g. `token_point_world`.
        computes: dtypes that change its numbers; an oracle has float32 alone.
        numerics: version of the adapter's arithmetic; enters the feature key.
        licence, source: of the weights, for `strata encoders info`.
    """

    name: str
    patch_size: int
    depth: int
    width: int = 0
    stride: int | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    context: str = "view"
    needs: frozenset[str] = field(default_factory=frozenset)
    computes: tuple[str, ...] = ("float32", "bfloat16", "float16")
    numerics: int = 1
    licence: str = ""
    source: str = ""

    def pixels(self, grid: Size) -> Size:
        """(height, width) of the images that it sees as a grid of (R, C) tokens."""
        return pixels_of_grid(grid, self.patch_size, self.stride)

    def check_computes(self, dtype: torch.dtype) -> None:
        """Raises an `EncoderError` unless the encoder computes in that dtype."""
        if str(dtype).removeprefix("torch.") not in self.computes:
            raise EncoderError(
                f"an encoder does not compute in {dtype}.",
                where=self.name,
                why=f"one of {', '.join(self.computes)} is expected",
                fix="use compute=float32, or compute=bfloat16 on a GPU",
            )


class Encoder(ABC):
    """A frozen model that turns views into tokens of any of its layers.

    A subclass sets `info`, and implements `width`, `layers` and `forward`. It is put to inference
    mode and moved by `to`; it never changes after construction.
    """

    info: EncoderInfo

    @abstractmethod
    def width(self, layer: str) -> int:
        """Channels of that layer."""

    @abstractmethod
    def layers(self) -> tuple[str, ...]:
        """All layer names it can put out, shallow to deep (grammar: store/layers.py)."""

    @abstractmethod
    def forward(self, batch: ViewBatch, layers: tuple[str, ...]) -> dict[str, FeatureMap]:
        """All wanted layers in one pass; blocks behind the last wanted one are not run.

        Raises:
            EncoderError: the images' size does not fit the patch size.
            LayerError: a layer is unknown.
        """

    @abstractmethod
    def weights_digest(self) -> str:
        """sha256 over the state dict's tensors in name order, random weights and oracles too."""

    @abstractmethod
    def to(self, device: str | torch.device, dtype: torch.dtype) -> Encoder:
        """The encoder itself, on that device, computing in that dtype (autocast for 16 bit)."""

    def overlap(self, stride: int) -> Encoder:
        """The encoder itself, from now on with patches that overlap: a token every `stride` pixels.

        Raises:
            EncoderError: it cannot, or the patch size is no multiple of the stride.
        """
        raise no_overlap(self.info, stride)

    @property
    def needs_geometry(self) -> bool:
        """Whether its features depend on depth or cameras, and so live at `<bundle>-<g>`."""
        return bool(self.info.needs)

    def prefix_names(self) -> tuple[str, ...]:
        """Names of the prefix tokens of every layer."""
        return ()


def no_overlap(info: EncoderInfo, stride: int) -> EncoderError:
    """The error of an encoder that takes no stride."""
    return EncoderError(
        f"the patches of {info.name} cannot be made to overlap.",
        where=f"stride={stride}",
        why="only oracles, and vision transformers of one patch embedding, take a stride",
        fix="leave stride= out; a larger grid= gives more tokens too",
    )
