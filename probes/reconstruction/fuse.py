"""One cloud of points out of the depth of all views.

Shapes: V views, H W pixels, N points.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch

from ...errors import ConfigError, did_you_mean
from ...kernels.geometry import unproject_depth
from .prediction import Prediction

FROM = ("depth", "head")


@dataclass(frozen=True, kw_only=True, eq=False)
class PointCloud:
    """Points of a scene with where they came from, sorted by view and pixel.

    Attributes:
        points_world: [N, 3] f32, in the prediction's world and unit.
        colours: [N, 3] u8.
        confidence: [N] f32.
        depth: [N] f32, in the camera of its view.
        view: [N] i32, index of the view.
    """

    points_world: np.ndarray
    colours: np.ndarray
    confidence: np.ndarray
    depth: np.ndarray
    view: np.ndarray

    def __len__(self) -> int:
        return len(self.points_world)

    def take(self, index: np.ndarray) -> PointCloud:
        """The points of an index or mask."""
        return PointCloud(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def thinned(self, most: int) -> PointCloud:
        """At most `most` points, drawn at random; the same ones every time."""
        if len(self) <= most:
            return self
        kept = np.random.default_rng(0).choice(len(self), most, replace=False, shuffle=False)
        return self.take(np.sort(kept))


def fuse(prediction: Prediction, *, source: str = "depth", drop_percent: float = 0.0) -> PointCloud:
    """The points of all views, without the pixels the network is least sure of.

    Args:
        prediction: of one scene.
        source: `depth` unprojects depth through the cameras; `head` takes the points of the point head.
        drop_percent: 0 to below 100: this share of all pixels, the least confident ones, is dropped.
            Equally confident pixels stay or go together: they stay.

    Raises:
        ConfigError: `source` is unknown, or the network has no such head.
    """
    points_VHW3, confidence_VHW = _points(prediction, source)
    sound = prediction.frames.inside & np.isfinite(points_VHW3).all(-1) & np.isfinite(confidence_VHW)
    if source == "depth":
        sound &= prediction.shown_depth > 0
    if drop_percent > 0 and sound.any():
        sound &= confidence_VHW >= np.percentile(confidence_VHW[sound], drop_percent)
    return PointCloud(
        points_world=points_VHW3[sound].astype(np.float32),
        colours=prediction.frames.images[sound],
        confidence=confidence_VHW[sound],
        depth=prediction.depth[sound],
        view=np.nonzero(sound)[0].astype(np.int32),
    )


def _points(prediction: Prediction, source: str) -> tuple[np.ndarray, np.ndarray]:
    """([V, H, W, 3], [V, H, W])."""
    if source not in FROM:
        raise ConfigError(f"points={source} is not known.", where="points", fix=did_you_mean(source, FROM))
    if source == "depth":
        places = (prediction.depth, prediction.K_px, prediction.world_from_cam)
        depth, K_px, world_from_cam = (torch.from_numpy(np.asarray(array, np.float64)) for array in places)
        return unproject_depth(depth, K_px, world_from_cam).numpy(), prediction.confidence
    if prediction.points_world is None or prediction.points_confidence is None:
        raise ConfigError(
            "the model has no head for points.",
            where="points=head",
            fix="points=depth takes them from depth and cameras",
        )
    return prediction.points_world, prediction.points_confidence
