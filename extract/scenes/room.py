"""Rooms made of formulas: where a ray ends, which way the surface faces, and what colour it has.

The world is metric with z up; a room spans 0 to `size`. Shapes: P rays, M waves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

LIGHT = np.array([0.36, -0.48, 0.8])
# Wavelengths of the texture; the shortest is some four pixels wide at 3 m and 200 pixels of width.
WAVES = 32
LONGEST_M, SHORTEST_M = 1.6, 0.12


class Solid(Protocol):
    """Something rays can hit."""

    def hit(self, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(distance [P] in ray lengths, infinite for a miss; normal [P, 3])."""
        ...


@dataclass(frozen=True, kw_only=True)
class Block:
    """An axis-aligned box between two corners."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def hit(self, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sides = (np.stack((self.low, self.high))[:, None] - origin) / rays  # [2, P, 3]
        enter, leave = sides.min(0), sides.max(0)
        distance = enter.max(-1)
        outside = (distance > leave.min(-1)) | (distance <= 0)
        return np.where(outside, np.inf, distance), _axis_normal(enter.argmax(-1), rays)


@dataclass(frozen=True, kw_only=True)
class Ball:
    """A sphere."""

    centre: tuple[float, float, float]
    radius: float

    def hit(self, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distance = _round_hit(origin - self.centre, rays, self.radius)
        return distance, (_ends(origin, rays, distance) - self.centre) / self.radius


@dataclass(frozen=True, kw_only=True)
class Pillar:
    """A round column from floor to ceiling."""

    centre: tuple[float, float]
    radius: float

    def hit(self, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distance = _round_hit(origin[:2] - self.centre, rays[:, :2], self.radius)
        across = (_ends(origin, rays, distance)[:, :2] - self.centre) / self.radius
        return distance, np.concatenate((across, np.zeros_like(across[:, :1])), axis=-1)


@dataclass(frozen=True, kw_only=True)
class Walls:
    """The room itself, hit from inside."""

    size: tuple[float, float, float]

    def hit(self, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sides = (np.where(rays > 0, self.size, 0.0) - origin) / rays
        leave = np.where(rays == 0, np.inf, sides)
        return leave.min(-1), _axis_normal(leave.argmin(-1), rays)


@dataclass(frozen=True, kw_only=True, eq=False)
class Texture:
    """A smooth colour of space: a sum of waves of many lengths, fixed to the world.

    Attributes:
        waves: [M, 3] f32 in radians per metre.
        phases: [M] f32.
        colours: [M, 3] f32 amplitudes of red, green, blue.
        tints: [solids, 3] f32, one for every solid.
    """

    waves: np.ndarray
    phases: np.ndarray
    colours: np.ndarray
    tints: np.ndarray

    def image(self, points: np.ndarray, normals: np.ndarray, solid: np.ndarray) -> np.ndarray:
        """[P, 3] u8; it depends on the place alone, never on who looks."""
        pattern = np.cos(points.astype(np.float32) @ self.waves.T + self.phases) @ self.colours
        shade = 0.75 + 0.25 * (normals @ LIGHT)[:, None].astype(np.float32)
        return ((self.tints[solid] + pattern) * shade * 255).clip(0, 255).round().astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Room:
    """Walls, which are solid 0, and what stands between them."""

    size: tuple[float, float, float]
    furniture: tuple[Solid, ...]
    texture: Texture

    def cast(self, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where rays [P, 3] from `origin` [3] end first.

        Returns:
            distance [P] in ray lengths, normal [P, 3] of length 1, index of the solid [P].
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            hits = [solid.hit(origin, rays) for solid in (Walls(size=self.size), *self.furniture)]
        distances = np.stack([distance for distance, _ in hits])
        solid = distances.argmin(0)
        every = np.arange(len(rays))
        return distances[solid, every], np.stack([normal for _, normal in hits])[solid, every], solid


def lounge(rng: np.random.Generator) -> Room:
    """A table with balls on it, seats around, a cupboard at a wall."""
    x, y = rng.uniform(-0.2, 0.2, 2)
    balls = [
        Ball(centre=(3 + x + dx, 2.5 + y + dy, 0.7 + radius), radius=radius)
        for dx, dy, radius in ((-0.35, 0.1, 0.22), (0.3, -0.15, rng.uniform(0.15, 0.28)))
    ]
    furniture = (
        Block(low=(2.3 + x, 2 + y, 0), high=(3.7 + x, 3 + y, 0.7)),
        *balls,
        Block(low=(0.1, 1.5, 0), high=(0.6, 3.5, 0.8)),
        Block(low=(4.8, 4.4, 0), high=(5.8, 4.9, 0.9)),
        Block(low=(2.2 + y, 0.1, 0), high=(3.4 + y, 0.5, 0.85)),
    )
    return Room(size=(6, 5, 2.8), furniture=furniture, texture=_texture(rng, 1 + len(furniture)))


def hall(rng: np.random.Generator) -> Room:
    """Pillars that hide what is behind them, a plinth with a ball, a bench."""
    x, y = rng.uniform(-0.2, 0.2, 2)
    furniture = (
        Pillar(centre=(2.6 + x, 2.4 + y), radius=0.15),
        Pillar(centre=(3.9 + y, 3.3 + x), radius=rng.uniform(0.12, 0.18)),
        Block(low=(3 + x, 2.7 + y, 0), high=(3.5 + x, 3.2 + y, 0.9)),
        Ball(centre=(3.25 + x, 2.95 + y, 1.15), radius=0.25),
        Block(low=(0.1, 2, 0), high=(0.5, 4, 0.5)),
    )
    return Room(size=(6.4, 5.6, 3.2), furniture=furniture, texture=_texture(rng, 1 + len(furniture)))


def office(rng: np.random.Generator) -> Room:
    """A thin wall in the middle that is seen from both sides, a desk at one of them."""
    x, y = rng.uniform(-0.2, 0.2, 2)
    furniture = (
        Block(low=(1.9 + x, 2.48 + y, 0), high=(4.1 + x, 2.52 + y, 1.6)),
        Block(low=(2.5 + x, 2.52 + y, 0), high=(3.3 + x, 3.1 + y, 0.7)),
        Block(low=(0.1, 1.2, 0), high=(0.5, 2.4, 0.9)),
        Block(low=(5.3, 2.8, 0), high=(5.9, 4.2, 1.1)),
    )
    return Room(size=(6, 5, 2.8), furniture=furniture, texture=_texture(rng, 1 + len(furniture)))


KINDS = (lounge, hall, office)


def _texture(rng: np.random.Generator, solids: int) -> Texture:
    lengths = np.geomspace(LONGEST_M, SHORTEST_M, WAVES)
    directions = rng.normal(size=(WAVES, 3))
    waves = 2 * np.pi * directions / np.linalg.norm(directions, axis=-1, keepdims=True) / lengths[:, None]
    # Long waves are stronger, as in pictures of real rooms.
    strength = 0.06 * (lengths / LONGEST_M) ** 0.3
    colours = rng.normal(size=(WAVES, 1)) + 0.5 * rng.normal(size=(WAVES, 3))
    return Texture(
        waves=waves.astype(np.float32),
        phases=rng.uniform(0, 2 * np.pi, WAVES).astype(np.float32),
        colours=(strength[:, None] * colours).astype(np.float32),
        tints=rng.uniform(0.3, 0.8, (solids, 3)).astype(np.float32),
    )


def _ends(origin: np.ndarray, rays: np.ndarray, distance: np.ndarray) -> np.ndarray:
    return origin + np.where(np.isfinite(distance), distance, 0)[:, None] * rays


def _round_hit(offset: np.ndarray, rays: np.ndarray, radius: float) -> np.ndarray:
    """Distance [P] to a circle or sphere around the origin, from `offset` outside of it."""
    a, half_b = (rays**2).sum(-1), rays @ offset
    root = half_b**2 - a * (offset @ offset - radius**2)
    distance = (-half_b - np.sqrt(root)) / a
    return np.where((root > 0) & (distance > 0), distance, np.inf)


def _axis_normal(axis: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """[P, 3]: along `axis`, against the ray."""
    normal = np.zeros_like(rays)
    every = np.arange(len(rays))
    normal[every, axis] = -np.sign(rays[every, axis])
    return normal
