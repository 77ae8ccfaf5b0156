"""Names of scenes and frames: their order, and what they may not contain."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from ...errors import SceneError, StoreError
from ...store.record_fields import check_scene_id


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts `view2` before `view10`."""
    parts = re.findall(r"(\d+)|(\D+)", name)
    return [(0, int(digits), "") if digits else (1, 0, text) for digits, text in parts]


def make_scene_id(dataset: str, scene: str, where: object) -> str:
    """`<dataset>/<scene>`.

    Raises:
        SceneError: one of the names is empty, `..`, or has a slash or control character.
    """
    try:
        return check_scene_id(f"{dataset}/{scene}")
    except StoreError as error:
        raise SceneError(error.what, where=where, why=error.why, fix=error.fix) from None


def check_frame_name(name: object, where: object) -> str:
    """A frame's name as text; dots are welcome, and numbers are names of video frames.

    A number gives the shortest text that reads back as it, so the same frame has one name everywhere.

    Raises:
        SceneError: it is empty or has a slash or control character.
    """
    number = isinstance(name, int | float) and not isinstance(name, bool) and math.isfinite(name)
    text = str(name) if number or isinstance(name, str) else ""
    if text in ("", ".", "..") or re.search(r"[\x00-\x1f/\\]", text):
        raise SceneError(
            f"{name!r} is not a frame name.",
            where=where,
            why="a name has no slashes or control characters",
            fix="rename the frame",
        )
    return text


def names_of_files(paths: Sequence[str]) -> list[str]:
    """A name for each file: its stem, or as much more of its path as keeps all of them apart."""
    files = [PurePosixPath(path) for path in paths]
    whole = ["_".join(file.parts) for file in files]
    for names in (
        [file.stem for file in files],
        [file.name for file in files],
        [name.removesuffix(file.suffix) for name, file in zip(whole, files, strict=True)],
    ):
        if len(set(names)) == len(names):
            return names
    return whole
