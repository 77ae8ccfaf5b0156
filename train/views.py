"""Sets of views as tensors, and batches of them.

Shapes: B sets, V views, R C token rows and columns, D channels, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from ..store.key import Size
from .augment import AugmentOptions
from .batch import Batch
from .draws import Draw


@dataclass(frozen=True, kw_only=True, eq=False)
class SetViews:
    """One set.

    Attributes:
        draw: which views.
        images: [V, 3, H, W] u8, or f32 in [0, 1] where colours were changed; None where only tokens are.
        tokens: [V, R, C, D] f16 or f32; None where the model makes them.
        depth: [V, H, W] f32 z-depth, 0 = none.
        K_px: [V, 3, 3] f32 intrinsics.
        world_from_cam: [V, 4, 4] f32 poses, the first view's camera as world.
    """

    draw: Draw
    images: Tensor | None = None
    tokens: Tensor | None = None
    depth: Tensor
    K_px: Tensor
    world_from_cam: Tensor


@dataclass(frozen=True, kw_only=True)
class Look:
    """How views are looked at.

    Attributes:
        size: (H, W) pixels that images are brought to; None where they are stored as they are.
        augment: random changes; None = none.
    """

    size: Size | None
    augment: AugmentOptions | None = None


class ViewSource(ABC):
    """Reads the views that a draw names. It is asked from several threads at once."""

    @abstractmethod
    def read(self, draw: Draw, look: Look, generator: Generator) -> SetViews:
        """The set; whatever is random comes from `generator`.

        Raises:
            StrataError: a view cannot be read.
        """

    def pictures(self, draw: Draw, look: Look) -> np.ndarray | None:
        """[V, H, W, 3] u8 images for people, or None where there are none."""
        return None


def in_first_camera(world_from_cam: np.ndarray) -> Tensor:
    """[V, 4, 4] f32 of f64 poses, the first view's camera as world.

    In float64: scenes may lie far from the origin of their world.
    """
    return torch.from_numpy((np.linalg.inv(world_from_cam[:1]) @ world_from_cam).astype(np.float32))


def collated(sets: Sequence[SetViews]) -> Batch:
    """One batch, of as many views of each set as the smallest has.

    Returns:
        `images` [B, V, 3, H, W] or `tokens` [B, V, R, C, D]; `depth`, `K_px`, `world_from_cam` and the list
        `draws`.
    """
    views = min(len(one.depth) for one in sets)
    names = ("images", "tokens", "depth", "K_px", "world_from_cam")
    there = [name for name in names if getattr(sets[0], name) is not None]
    stacked = {
        name: torch.stack([_alike(getattr(one, name)[:views], name, sets) for one in sets]) for name in there
    }
    return {**stacked, "draws": [one.draw for one in sets]}


def _alike(value: Tensor, name: str, sets: Sequence[SetViews]) -> Tensor:
    """In the widest dtype that the sets of the batch have."""
    dtypes = {getattr(one, name).dtype for one in sets}
    if len(dtypes) == 1:
        return value
    return value.float() / 255 if value.dtype == torch.uint8 else value.float()
