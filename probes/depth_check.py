"""`depth_agreement`: do stored depth and stored cameras of a scene fit each other?

The share of covisible pixels whose depth, moved through the cameras, agrees with the depth of the other
view to 2 %, over the distinct ordered pairs of views in the scene's sets of which the second sees at
least 0.2 of what the first shows (its covisibility with itself: the share that has depth at all). Pixels
that are hidden in the other view are not compared. Right poses give 0.8 and more; wrong poses, axes or
units next to nothing. An oracle alone would not notice: it agrees with itself under any pose.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..kernels.geometry import depth_agreement, invert_rigid
from .base import Record
from .set_views import PlacedSet, read_views

if TYPE_CHECKING:
    from ..store.block import Block
    from ..store.selection import Selection

COVISIBILITY = 0.2
TOLERANCE = 0.02

Pixels = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Depth [H, W] (0 = none), K [3, 3] and cam_from_world [4, 4] of one view, f64."""


def covisible_pairs(sets: Iterable[PlacedSet]) -> list[tuple[str, str]]:
    """Distinct (view, other view) by frame name, in sorted order, whose covisibility suffices."""
    found = set()
    for placed in sets:
        members, shares = placed.view_set.members, placed.view_set.covisibility
        for (i, a), (j, b) in permutations(enumerate(members), 2):
            enough = shares is not None and shares[i][j] >= COVISIBILITY * shares[i][i] > 0
            if a != b and enough and {a, b} <= set(placed.names):
                found.add((a, b))
    return sorted(found)


def depth_record(selection: Selection, sets: list[PlacedSet]) -> Record:
    """The record of one scene; its value is None where there is nothing to compare.

    Raises:
        SelectionError: the store has no depth and cameras for these views.
    """
    pairs = covisible_pairs(sets)
    views = read_views(selection, {name for pair in pairs for name in pair}, _pixels)
    agreeing = compared = 0
    for a, b in pairs:
        (depth_a_m, K_a_px, a_from_world), (depth_b_m, K_b_px, b_from_world) = views[a], views[b]
        b_from_a = b_from_world @ invert_rigid(a_from_world)
        counts = depth_agreement(depth_a_m, depth_b_m, K_a_px, K_b_px, b_from_a, TOLERANCE)
        agreeing, compared = agreeing + counts[0], compared + counts[1]
    return _record(selection, len(pairs), agreeing, compared)


def _record(selection: Selection, pairs: int, agreeing: int, compared: int) -> Record:
    scene = selection.scenes[0]
    reason = "no covisible pair of views" if not pairs else "no pixel of a pair has depth in both views"
    return Record(
        probe="correspondence",
        protocol=selection.stored_key.pixels_folder.removeprefix("pixels/"),
        encoder="",
        key="",
        layer="",
        dataset=scene.partition("/")[0],
        scene=scene,
        unit="scene",
        set="",
        metric="depth_agreement",
        value=agreeing / compared if compared else None,
        covariates={
            "pairs": pairs,
            "compared_px": compared,
            "covisibility": COVISIBILITY,
            "tolerance": TOLERANCE,
            **({} if compared else {"reason": reason}),
        },
    )


def _pixels(block: Block, rows: list[int]) -> list[Pixels]:
    geometry = block.geometry(rows)
    depth_m = np.where(geometry.valid, geometry.depth_m, 0).astype(np.float64)
    arrays = zip(depth_m, geometry.K_px, geometry.cam_from_world, strict=True)
    return [(torch.from_numpy(d), torch.from_numpy(K), torch.from_numpy(T)) for d, K, T in arrays]
