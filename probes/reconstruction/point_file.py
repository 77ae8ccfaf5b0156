"""`points.ply`: the fused points, binary, with colours and confidence."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

from ...errors import StoreError
from ...store.atomic import write_atomic
from .fuse import PointCloud


def why_no_ply() -> str:
    """Empty where open3d imports, else what is missing and how to get it."""
    try:
        importlib.import_module("open3d")
    except Exception as error:  # a missing system library is an OSError, a missing package an ImportError
        reason = str(error).partition("\n")[0]
        return f"open3d does not import ({reason}); pip install 'strata3d[3d]', or see `strata doctor`"
    return ""


def write_ply(cloud: PointCloud, path: Path) -> None:
    """Write x y z, red green blue and confidence of every point.

    Args:
        cloud: at least one point.
        path: of the file, which appears whole.

    Raises:
        ImportError, OSError: there is no open3d; ask `why_no_ply` first.
        StoreError: the file cannot be written, here or among temporary files.
    """
    import open3d as o3d

    points = o3d.t.geometry.PointCloud()
    points.point.positions = o3d.core.Tensor.from_numpy(cloud.points_world)
    points.point.colors = o3d.core.Tensor.from_numpy(cloud.colours)
    points.point.confidence = o3d.core.Tensor.from_numpy(cloud.confidence[:, None])
    # open3d goes by the suffix, which a partial file does not have: it writes elsewhere first.
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "points.ply"
        if not o3d.t.io.write_point_cloud(written, points):
            raise StoreError(
                "open3d cannot write the points.",
                where=folder,
                why="it names no reason; most often the disk of temporary files is full",
                fix="make room there, or set TMPDIR to a folder with room",
            )
        write_atomic(path, written.read_bytes())
