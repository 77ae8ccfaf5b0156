"""What is scored of a VGGT, and how; no torch is needed to say so."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import ConfigError, did_you_mean

NORMS = ("l1", "l2")
SURFACES = ("none", "slope", "slope_conf", "normal", "normal_conf")


@dataclass(frozen=True, kw_only=True)
class CameraLossOptions:
    """How cameras are scored.

    Attributes:
        weight: in the total.
        norm: l1 = mean of absolute differences | l2 = length of the difference, of each part of the pose.
        translation, rotation, fov: weights of the parts.
        decay: of the weight of earlier stages.
        least_pixels: a set takes part when its first view has more valid pixels than this.

    Raises:
        ConfigError: the norm is not known, or a number is negative.
    """

    weight: float = 5.0
    norm: str = "l1"
    translation: float = 1.0
    rotation: float = 1.0
    fov: float = 0.5
    decay: float = 0.6
    least_pixels: int = 100

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ConfigError(f"norm={self.norm} is not known.", where="camera.norm", fix="write l1 or l2")
        for name in ("weight", "translation", "rotation", "fov", "decay", "least_pixels"):
            if not getattr(self, name) >= 0:
                raise ConfigError(
                    f"{name}={getattr(self, name)} is negative.",
                    where=f"camera.{name}",
                    fix="0 leaves it out",
                )


@dataclass(frozen=True, kw_only=True)
class DenseLossOptions:
    """How depth or points are scored.

    Attributes:
        weight: in the total.
        surface: none | slope | normal (of points), or with _conf, which lets the confidence weigh it.
        valid_range: share of the terms that count, the largest are left out; none = all count.
        gamma, alpha: weights of the confident error and of the confidence.

    Raises:
        ConfigError: a word is not known, or a number is out of range.
    """

    weight: float = 1.0
    surface: str = "slope"
    valid_range: float | None = 0.98
    gamma: float = 1.0
    alpha: float = 0.2

    def __post_init__(self) -> None:
        if self.surface not in SURFACES:
            raise ConfigError(
                f"surface={self.surface} is not known.",
                where="surface",
                fix=did_you_mean(str(self.surface), SURFACES),
            )
        if self.valid_range is not None and not 0 < self.valid_range <= 1:
            raise ConfigError(
                f"valid_range={self.valid_range} is no share.",
                where="valid_range",
                fix="write a share from above 0 to 1, such as 0.98, or none",
            )
        for name in ("weight", "gamma", "alpha"):
            if not getattr(self, name) >= 0:
                raise ConfigError(
                    f"{name}={getattr(self, name)} is negative.", where=name, fix="0 leaves it out"
                )


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """What is scored, and how; None leaves a part out, though the model may predict it.

    Attributes:
        camera, depth, point: of the predictions `pose_enc_list`, `depth`, `world_points`.

    Raises:
        ConfigError: nothing is scored, or normals of depth are wanted.
    """

    camera: CameraLossOptions | None = field(default_factory=CameraLossOptions)
    depth: DenseLossOptions | None = field(default_factory=DenseLossOptions)
    point: DenseLossOptions | None = field(default_factory=lambda: DenseLossOptions(surface="normal"))

    def __post_init__(self) -> None:
        if self.camera is None and self.depth is None and self.point is None:
            raise ConfigError("the loss has no part.", where="loss", fix="give one of camera, depth, point")
        if self.depth is not None and self.depth.surface.startswith("normal"):
            raise ConfigError(
                f"surface={self.depth.surface} is for points.",
                where="depth.surface",
                fix="write slope or none",
            )
