"""`contact_sheet.png`: images, depth and confidence of a reconstruction at a glance.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

import numpy as np

from ..visualize import rows_png
from .prediction import Prediction

COLUMNS = 10
NONE_GREY = 232
SPAN_PERCENT = (2, 98)


def contact_sheet(prediction: Prediction, title: str) -> bytes:
    """A PNG; of more than ten views ten evenly chosen ones. Depth and confidence share a scale over them."""
    shown = np.unique(np.linspace(0, len(prediction.frames) - 1, COLUMNS).round().astype(int))
    depth, inside = prediction.shown_depth[shown], prediction.frames.inside[shown]
    # Near is red: inverse depth tells surfaces close by apart.
    with np.errstate(divide="ignore"):
        nearness = np.where(depth > 0, 1 / depth, np.nan)
    confidence = np.where(inside, prediction.confidence[shown], np.nan)
    rows = {
        "image": list(prediction.frames.images[shown]),
        "depth": list(coloured(nearness, "turbo")),
        "confidence": list(coloured(np.log(confidence), "viridis")),
    }
    return rows_png(rows, title)


def coloured(values: np.ndarray, colours: str) -> np.ndarray:
    """[..., 3] u8 of values [...]: one scale from the 2nd to the 98th percentile; what is NaN is grey.

    Args:
        values: of any shape.
        colours: name of a colour map of matplotlib.
    """
    from matplotlib import colormaps

    sound = np.isfinite(values)
    low, high = np.percentile(values[sound], SPAN_PERCENT) if sound.any() else (0.0, 1.0)
    scaled = ((np.where(sound, values, low) - low) / max(high - low, 1e-12)).clip(0, 1)
    rgb = (colormaps[colours](scaled)[..., :3] * 255).round().astype(np.uint8)
    return np.where(sound[..., None], rgb, np.uint8(NONE_GREY))
