"""What the words of `strata probe correspondence` say; wrong ones are refused before torch is imported."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ProbeError, did_you_mean

if TYPE_CHECKING:
    from ..configs.schema import CorrespondenceConfig

PROTOCOLS = ("visible", "voxel", "reference")


@dataclass(frozen=True, kw_only=True)
class VoxelEdge:
    """The edge of a cell: `size` scene scales, or `size` metres when metric."""

    size: float
    metric: bool = False

    @classmethod
    def parse(cls, value: Any) -> VoxelEdge:
        """0.05 or "0.05" in scene scales, "0.3m" in metres.

        Raises:
            ConfigError: neither.
        """
        match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(m?)\s*", str(value))
        try:
            size = float(match[1]) if match else math.nan
        except ValueError:
            size = math.nan
        if match is None or not 0 < size < math.inf:
            raise ConfigError(
                f"voxel={value} is not the edge of a cell.",
                where="voxel",
                why="a positive number of scene scales is expected, or one of metres that ends in m",
                fix="write voxel=0.05 or voxel=0.3m",
            )
        return cls(size=size, metric=bool(match[2]))

    def edge_m(self, scene_scale_m: float | None) -> float:
        """The edge in the scene's unit.

        Raises:
            ProbeError: it depends on the scene's scale, and the scene has none.
        """
        if self.metric:
            return self.size
        if not scene_scale_m:
            raise ProbeError(
                "the scene has no scale to size voxels by.",
                where="voxel",
                why="a scene's scale is the median of its depth, and it has no depth",
                fix="give a metric edge, as in voxel=0.3m",
            )
        return self.size * scene_scale_m


def protocol_names(config: CorrespondenceConfig) -> tuple[str, ...]:
    """The protocols that were asked for, each once.

    Raises:
        ConfigError: one is unknown, or a voxel edge is no positive number.
    """
    unknown = [name for name in config.protocol if name not in PROTOCOLS]
    if unknown or not config.protocol:
        raise ConfigError(
            f"protocol={','.join(config.protocol)} is not known.",
            where="protocol",
            why=f"{', '.join(PROTOCOLS)} are there",
            fix=did_you_mean(unknown[0] if unknown else "", PROTOCOLS),
        )
    for edge in (config.voxel, config.reference_voxel):
        VoxelEdge.parse(edge)
    return tuple(dict.fromkeys(config.protocol))
