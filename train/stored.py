"""Views of a store: tokens that some encoder left there, depth and cameras; no image is decoded.

Shapes: V views, R C token rows and columns, D channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Generator

from ..errors import SelectionError
from ..store.block import Block
from ..store.key import Size
from ..store.selection import Selection
from .draws import Draw
from .views import Look, SetViews, ViewSource, in_first_camera


class StoredViews(ViewSource):
    """Views of a selection of one layer.

    Args:
        selection: with one layer.
        scenes: ids of the scenes that are read.

    Raises:
        SelectionError: depth and cameras were not kept.

    Attributes:
        grids: by (scene id, frame name), the token grid of the views that have tokens, depth and a camera.
        left_out: by scene id, why views of it cannot be read.
    """

    def __init__(self, selection: Selection, scenes: Iterable[str]) -> None:
        (self._layer,), self._selection = selection.layers, selection
        self.grids: dict[tuple[str, str], Size | None] = {}
        self.left_out: dict[str, str] = {}
        wanted = set(scenes)
        for block in selection.blocks():
            if block.scene in wanted:
                self._add(block)

    def read(self, draw: Draw, look: Look, generator: Generator) -> SetViews:
        views = self._read(draw, ("tokens", "depth_m", "K_px", "cam_from_world"))
        return SetViews(
            draw=draw,
            tokens=torch.from_numpy(views.tokens[self._layer]),
            depth=torch.from_numpy(views.depth_m),
            K_px=torch.from_numpy(views.K_px.astype(np.float32)),
            world_from_cam=in_first_camera(np.linalg.inv(views.cam_from_world)),
        )

    def pictures(self, draw: Draw, look: Look) -> np.ndarray | None:
        try:
            return self._read(draw, ("image",)).image
        except SelectionError:  # images need not be kept
            return None

    def _read(self, draw: Draw, fields: tuple[str, ...]) -> Any:
        return self._selection.read([f"{draw.scene}/{name}" for name in draw.names], fields)

    def _add(self, block: Block) -> None:
        K_px, poses = block.cameras()
        if block.scene_scale_m is None:
            self.left_out[block.scene] = "no view has depth"
            return
        known = np.isfinite(K_px).all((1, 2)) & np.isfinite(poses).all((1, 2))
        # Depth itself would be a lot to read before the first step.
        known &= block.token_points().valid.any((1, 2))
        if not known.any():
            self.left_out[block.scene] = "no view has a camera and depth"
        for row in np.flatnonzero(known).tolist():
            self.grids[block.scene, block.names[row]] = block.grid
