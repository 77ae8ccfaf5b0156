"""The size of a network's images of a room, and the unit of its answers."""

from __future__ import annotations

HEIGHT, WIDTH, VIEWS = 42, 56, 4
# A network's world is the first camera's, and its unit is its own.
SCALE = 0.37
