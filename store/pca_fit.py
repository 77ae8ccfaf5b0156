"""The principal components of one layer's tokens, and how a stored layer keeps them.

Shapes: N tokens, D channels, K components.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SelectionError

if TYPE_CHECKING:
    from .selection import Selection

VIEWS_AT_A_TIME = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Basis:
    """Principal components.

    Attributes:
        mean: [D] f32.
        components: [K, D] f32, orthonormal, by falling variance.
        variance: [K] f32 of the tokens along each.
        total_variance: of the tokens, over all channels.
        tokens: how many were fitted on.
        fitted_on: fingerprint of the selection.
    """

    mean: np.ndarray
    components: np.ndarray
    variance: np.ndarray
    total_variance: float
    tokens: int
    fitted_on: str

    def to_dict(self) -> dict[str, Any]:
        """For a document: arrays as base64 of little-endian f32."""
        arrays = {name: getattr(self, name) for name in ("mean", "components", "variance")}
        encoded = {
            name: base64.b64encode(one.astype("<f4").tobytes()).decode() for name, one in arrays.items()
        }
        return {
            **encoded,
            "shape": list(self.components.shape),
            "total_variance": self.total_variance,
            "tokens": self.tokens,
            "fitted_on": self.fitted_on,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Basis:
        count, width = value["shape"]
        shapes = {"mean": (width,), "components": (count, width), "variance": (count,)}
        arrays = {
            name: np.frombuffer(base64.b64decode(value[name]), "<f4").reshape(shape)
            for name, shape in shapes.items()
        }
        rest = {name: value[name] for name in ("total_variance", "tokens", "fitted_on")}
        return cls(**arrays, **rest)


def fit_basis(selection: Selection, layer: str, k: int, most_views: int) -> Basis:
    """The first `k` components of all finite tokens of at most `most_views` views, evenly chosen.

    Raises:
        SelectionError: the layer has fewer channels, or no finite token.
    """
    width = selection.parts[0].width(layer)
    if not isinstance(k, int) or not 1 <= k <= width or most_views < 1:
        raise SelectionError(
            f"{k!r} principal components cannot be fitted.",
            where=f"{selection.stored_key.name}, {layer}",
            why=f"the layer has {width} channels, and at most {most_views} views are fitted on",
            fix=f"give k from 1 to {width}, and one view or more",
        )
    count, mean, covariance = _moments(selection, layer, most_views)
    variance, vectors = np.linalg.eigh(covariance)
    components = vectors[:, ::-1][:, :k].T
    largest = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(k), largest])[:, None]
    return Basis(
        mean=mean.astype(np.float32),
        components=components.astype(np.float32),
        variance=variance[::-1][:k].astype(np.float32),
        total_variance=float(np.trace(covariance)),
        tokens=count,
        fitted_on=selection.fingerprint,
    )


def _moments(selection: Selection, layer: str, most_views: int) -> tuple[int, np.ndarray, np.ndarray]:
    """How many finite tokens, their mean [D] and their covariance [D, D], f64.

    Sums are taken about the first of them, which keeps the digits of features far from zero.

    Raises:
        SelectionError: no token is finite.
    """
    views = len(selection)
    chosen = [views * i // min(views, most_views) for i in range(min(views, most_views))]
    count, origin = 0, None
    total = products = np.zeros(())
    for block, rows in selection.index.rows(np.array(chosen)):
        for start in range(0, len(rows), VIEWS_AT_A_TIME):
            tokens = block.tokens(layer, rows[start : start + VIEWS_AT_A_TIME])
            flat = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)  # [N, D]
            flat = flat[np.isfinite(flat).all(1)]
            if len(flat):
                origin = flat[0].copy() if origin is None else origin
                flat -= origin
                count, total, products = count + len(flat), total + flat.sum(0), products + flat.T @ flat
    if origin is None:
        raise SelectionError("no token to fit on is finite.", where=f"{selection.stored_key.name}, {layer}")
    about = total / count
    return count, origin + about, products / count - np.outer(about, about)
