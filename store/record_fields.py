"""Checks of the fields of records: ids, digests and whole numbers, one by one or many at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import StoreError

_NAME = r"(?!\.{1,2}(?:/|\n|\Z))[^\x00-\x1f/\\]+"
_IDS = re.compile(rf"(?:{_NAME}/{_NAME}(?:\n|\Z))*")
_HEX = re.compile(r"[0-9a-f]*")


def check_scene_id(scene_id: Any) -> str:
    """The id itself, if it is `<dataset>/<scene>` and cannot lead out of a folder.

    Raises:
        StoreError: it is not.
    """
    if not are_scene_ids([scene_id]):
        raise StoreError(
            f"{scene_id!r} is not a scene id.",
            where="scene id",
            why="an id is <dataset>/<scene>, two names without slashes or control characters",
            fix="rename the scene",
        )
    return scene_id


def are_scene_ids(values: Sequence[Any]) -> bool:
    """Whether all of them are ids that `check_scene_id` lets pass."""
    if not set(map(type, values)) <= {str} or not all(values):
        return False
    text = "\n".join(values)
    return text.count("\n") == max(0, len(values) - 1) and _IDS.fullmatch(text) is not None


def check_hex(value: Any, length: int = 64) -> str:
    """The value itself, if it is so many hex digits."""
    if not are_hex([value], length):
        raise ValueError(f"{value!r} is not a digest of {length} hex digits")
    return value


def are_hex(values: Sequence[Any], length: int = 64) -> bool:
    """Whether all of them are so many hex digits."""
    right = set(map(type, values)) <= {str} and set(map(len, values)) <= {length}
    return right and _HEX.fullmatch("".join(values)) is not None


def whole_number(value: Any, least: int = 0) -> int:
    """The value itself, if it is a whole number from `least` on."""
    if type(value) is not int or value < least:
        raise ValueError(f"{value!r} is not a whole number from {least}")
    return value
