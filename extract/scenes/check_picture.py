"""One picture of a scene: a row of images above a row of depth."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...errors import SceneError
from .decode import decode_depth, decode_image
from .scene import Scene, View

COLUMN_INCHES = 2.4


def scene_picture(scene: Scene, views: int = 6) -> bytes:
    """Evenly spread views of a scene, as WebP; what cannot be decoded stays empty.

    Args:
        scene: with at least one view.
        views: how many to draw at most.
    """
    count = min(max(1, views), len(scene))
    chosen = [scene.views[i] for i in np.linspace(0, len(scene) - 1, count).round().astype(int)]
    figure = Figure(figsize=(COLUMN_INCHES * count, 2 * COLUMN_INCHES), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, count, squeeze=False)
    for view, (above, below) in zip(chosen, axes.T, strict=True):
        _draw_view(view, above, below)
    picture = BytesIO()
    figure.savefig(picture, format="webp", dpi=100, pil_kwargs={"quality": 80})
    return picture.getvalue()


def _draw_view(view: View, above: Axes, below: Axes) -> None:
    above.set_axis_off()
    below.set_axis_off()
    above.set_title(view.name, fontsize=8)
    try:
        image = decode_image(view)
        above.imshow(image)
        depth_m = decode_depth(view, image.shape[:2])
    except SceneError as error:
        below.set_title(error.what, fontsize=6, color="red", wrap=True)
        return
    if depth_m is not None and (depth_m > 0).any():
        low, high = np.percentile(depth_m[depth_m > 0], (2, 98))
        below.imshow(np.where(depth_m > 0, depth_m, np.nan), cmap="turbo", vmin=low, vmax=high)
        below.set_title(f"{low:.2f} to {high:.2f}", fontsize=8)
