"""`cameras.json`: the cameras of a reconstruction, for people and programs."""

from __future__ import annotations

from typing import Any

from .prediction import Prediction

FORMAT, VERSION = "strata-cameras", 1
CONVENTION = (
    "OpenCV: x right, y down, z forward; the integer pixel coordinate is the pixel's centre; "
    "matrices are row-major and act on columns"
)


def cameras_document(prediction: Prediction, unit: str) -> dict[str, Any]:
    """One entry a view, in order.

    Args:
        prediction: of one scene.
        unit: what a length of 1 means, in words.
    """
    frames = prediction.frames
    height, width = frames.images.shape[1:3]
    return {
        "format": FORMAT,
        "version": VERSION,
        "convention": CONVENTION,
        "unit": unit,
        "network_size": {"width": width, "height": height},
        "views": [
            {
                "name": name,
                "width": frames.source_sizes[i][0],
                "height": frames.source_sizes[i][1],
                "K_px": prediction.source_intrinsics_px[i].tolist(),
                "network_K_px": prediction.K_px[i].tolist(),
                "network_from_source_px": frames.network_from_source_px[i].tolist(),
                "cam_from_world": prediction.cam_from_world[i].tolist(),
                "world_from_cam": prediction.world_from_cam[i].tolist(),
            }
            for i, name in enumerate(frames.names)
        ],
    }
