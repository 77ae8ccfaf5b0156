"""Which scenes the word `scene=` of every command means."""

from __future__ import annotations

from fnmatch import fnmatchcase


def scene_fits(scene_id: str, glob: str | None) -> bool:
    """Whether a glob fits the id `<dataset>/<scene>`, or the scene's name alone; None fits all."""
    return glob is None or fnmatchcase(scene_id, glob) or fnmatchcase(scene_id.partition("/")[2], glob)
