"""What a VGGT makes of a set of views, as a picture: images, depth, and everything from above.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from ..kernels.dense_views import DenseViews
from .batch import Batch, to_device
from .normalise import normalised
from .vggt_batch import measurable, predict, predicted_geometry, true_geometry

POINTS = 3000
MAP = "turbo"


def paint_set(model: nn.Module, batch: Batch, images: np.ndarray | None, title: str, path: Path) -> None:
    """Write a picture of one set, true beside predicted; nothing, where the model has no cameras or surface.

    Args:
        model: in evaluation mode.
        batch: of one set.
        images: [V, H, W, 3] u8; None = the store keeps none.
        title: of the picture.
        path: a .png file.
    """
    batch = to_device(batch, next(model.parameters()).device)
    answer = predict(model, batch)
    if not measurable(answer):
        return
    truth, valid = true_geometry(batch["depth"], batch["K_px"], batch["world_from_cam"])
    # The answer is shown in the unit that the model gave it, which is to be the truth's.
    answered = normalised(predicted_geometry(answer), valid, scaled=False)
    pair = {"true": normalised(truth, valid), "predicted": answered}
    figure = _figure(pair, valid[0].cpu().numpy(), images, title)
    figure.savefig(path, dpi=100)


def _figure(pair: dict[str, DenseViews], valid: np.ndarray, images: np.ndarray | None, title: str) -> Figure:
    views, rows = len(valid), [*(["image"] if images is not None else []), *pair]
    figure = Figure(figsize=(2.6 * (views + 2), 2.1 * len(rows)), layout="constrained")
    figure.suptitle(title)
    grid = figure.add_gridspec(len(rows), views + 2)
    depths = {name: geometry.depth[0].float().cpu().numpy() for name, geometry in pair.items()}
    top = float(np.percentile(depths["true"][valid], 98)) if valid.any() else 1.0
    for i, row in enumerate(rows):
        for view in range(views):
            axes = figure.add_subplot(grid[i, view])
            if row == "image":
                assert images is not None
                axes.imshow(images[view])
            else:
                shown = np.where(valid[view] | (row == "predicted"), depths[row][view], np.nan)
                axes.imshow(shown, vmin=0, vmax=top, cmap=MAP)
            axes.set(xticks=[], yticks=[])
            if view == 0:
                axes.set_ylabel(row if row == "image" else f"{row} depth")
    _from_above(figure.add_subplot(grid[:, views:]), pair, valid)
    return figure


def _from_above(axes: Any, pair: dict[str, DenseViews], valid: np.ndarray) -> None:
    """Points and cameras, seen along the first camera's y axis, in mean distances of the points."""
    for name, colour in (("true", "tab:gray"), ("predicted", "tab:red")):
        points = pair[name].points_world[0].float().cpu().numpy()[valid]
        some = points[:: max(1, len(points) // POINTS)]
        axes.scatter(some[:, 0], some[:, 2], s=2, c=colour, alpha=0.4, linewidths=0)
        centres = pair[name].world_from_cam[0, :, :3, 3].float().cpu().numpy()
        axes.plot(centres[:, 0], centres[:, 2], "^-", c=colour, markeredgecolor="black", label=name)
    true = pair["true"].points_world[0][torch.from_numpy(valid)].float().cpu().numpy()
    if len(true):
        low, high = np.percentile(true, [1, 99], axis=0)
        margin = 0.3 * max(high[0] - low[0], high[2] - low[2], 1e-6)
        axes.set_xlim(min(low[0], 0) - margin, max(high[0], 0) + margin)
        axes.set_ylim(min(low[2], 0) - margin, max(high[2], 0) + margin)
    axes.set(aspect="equal", title="from above", xlabel="x, right", ylabel="z, forward")
    axes.legend(fontsize="small")
