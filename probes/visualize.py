"""Pictures of features: PCA colours fitted over all views of a set, beside the images.

Shapes: V views, R C token rows and columns, D channels, N tokens of all views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from ..errors import ProbeError
from ..store.atomic import write_atomic

ROW_HEIGHT_IN, LEFT_IN, TOP_IN = 1.7, 1.15, 0.45
DPI = 110
INVALID_GREY = 168
FLAT_GREY = 0.5


def pca_rgb(tokens: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Colours of tokens: the first three principal components, one fit over all views.

    Each component is scaled so that its 2nd and 98th percentile over the set span the channel, and
    its sign makes the largest loading positive. A component without spread is mid grey.

    Args:
        tokens: V arrays [R, C, D], any float type; grids may differ, D may not. Tokens with a
            channel that is not finite are drawn grey and take no part in the fit.

    Returns:
        V arrays [R, C, 3] u8.

    Raises:
        ProbeError: the widths differ.
    """
    widths = {view.shape[-1] for view in tokens}
    if len(widths) > 1:
        raise ProbeError(
            "the views' tokens differ in width.",
            where="pca_rgb",
            why=f"one fit needs one width, got {sorted(widths)}",
            fix="give views of one encoder and one layer",
        )
    rows_ND = [np.asarray(view, np.float64).reshape(-1, view.shape[-1]) for view in tokens]
    flat_ND = np.concatenate(rows_ND)
    valid_N = np.isfinite(flat_ND).all(-1)
    colours_N3 = np.full((len(flat_ND), 3), INVALID_GREY, np.uint8)
    if valid_N.any():
        colours_N3[valid_N] = _colours(_scores(flat_ND[valid_N]))
    ends = np.cumsum([len(view) for view in rows_ND])[:-1]
    return [
        part.reshape(*view.shape[:2], 3)
        for part, view in zip(np.split(colours_N3, ends), tokens, strict=True)
    ]


def pca_picture(
    images: Sequence[np.ndarray],
    tokens_by_layer: Mapping[str, Sequence[np.ndarray]],
    path: str | Path,
    title: str,
) -> None:
    """Write a PNG: the images of a set above one row of PCA colours per layer.

    Colours are comparable along a row, not between rows. Equal input gives equal bytes.

    Args:
        images: V arrays [H, W, 3] u8; sizes may differ.
        tokens_by_layer: layer name -> V arrays [R, C, D]; each grid covers its whole image.
        path: the PNG to write, atomically; its folder is made.
        title: one line above the picture.

    Raises:
        ProbeError: a layer has not one token map per image.
    """
    for layer, tokens in tokens_by_layer.items():
        if len(tokens) != len(images):
            raise ProbeError(
                f"layer {layer} has {len(tokens)} token maps for {len(images)} images.",
                where=path,
                why="each view needs one token map",
                fix="give the tokens of the same set",
            )
    rows = {"image": list(images), **{layer: pca_rgb(maps) for layer, maps in tokens_by_layer.items()}}
    write_atomic(Path(path), rows_png(rows, title))


def rows_png(rows: Mapping[str, Sequence[np.ndarray]], title: str) -> bytes:
    """A PNG of pictures in rows and columns; equal input gives equal bytes.

    Args:
        rows: by name, which stands to the left, pictures [H, W, 3] u8; every row has as many. The first
            row's shapes are those of the columns.
        title: one line above.
    """
    # Figure without pyplot: no global state, no display, no figure left open.
    from matplotlib.figure import Figure

    aspects = [image.shape[1] / image.shape[0] for image in rows["image"]]
    width, height = ROW_HEIGHT_IN * sum(aspects) + LEFT_IN + 0.05, ROW_HEIGHT_IN * len(rows) + TOP_IN + 0.05
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    grid = figure.add_gridspec(
        len(rows),
        len(aspects),
        width_ratios=aspects,
        left=LEFT_IN / width,
        right=1 - 0.05 / width,
        bottom=0.05 / height,
        top=1 - TOP_IN / height,
        wspace=0.03,
        hspace=0.03,
    )
    figure.text(LEFT_IN / width, 1 - 0.14 / height, title, ha="left", va="top", size=13, color="#1f2933")
    for r, (name, row) in enumerate(rows.items()):
        for v, pixels in enumerate(row):
            axes = figure.add_subplot(grid[r, v])
            axes.imshow(pixels, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            if v == 0:
                label = {"ha": "right", "va": "center", "size": 12, "color": "#52606d"}
                axes.text(-0.03, 0.5, name, transform=axes.transAxes, **label)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _scores(flat_ND: np.ndarray) -> np.ndarray:
    """[N, 3] coordinates along the strongest directions; zeros beyond the D there are."""
    centred_ND = flat_ND - flat_ND.mean(0)
    _, directions_DD = np.linalg.eigh(centred_ND.T @ centred_ND)
    top_D3 = directions_DD[:, ::-1][:, :3]
    largest = np.abs(top_D3).argmax(0)
    signs = np.where(top_D3[largest, np.arange(top_D3.shape[1])] < 0, -1.0, 1.0)
    scores = centred_ND @ (top_D3 * signs)
    return np.pad(scores, ((0, 0), (0, 3 - scores.shape[1])))


def _colours(scores_N3: np.ndarray) -> np.ndarray:
    low, high = np.percentile(scores_N3, [2, 98], axis=0)
    # Rounding leaves directions without spread at about 1e-16 of the strongest; they are no signal.
    floor = 1e-9 * max(float(np.abs(scores_N3).max()), 1e-300)
    spread = high - low
    scaled = np.where(spread > floor, (scores_N3 - low) / np.where(spread > floor, spread, 1), FLAT_GREY)
    return (scaled.clip(0, 1) * 255).round().astype(np.uint8)
