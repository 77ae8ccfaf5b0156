"""Where the frames of a WAI scene keep a modality: `depth`, `pred_mask/moge2`, `depth|rendered_depth`."""

from __future__ import annotations

import re
from typing import Any

from ...errors import SceneError

_REGEX_SIGNS = frozenset(".|*+?()[]{}^$\\")


def frame_key(frame_modalities: object, modality: str) -> str | None:
    """The key under which frames name their file of a modality; None where the scene has none.

    Args:
        frame_modalities: that part of `scene_meta.json`.
        modality: a name; `group/name` of a nested one, of which `group` alone takes the last; or a
            regular expression over the names, of which the first that matches is taken.

    Raises:
        SceneError: the regular expression is none.
    """
    if not isinstance(frame_modalities, dict):
        return None
    if _REGEX_SIGNS & set(modality):
        names = (name for name in frame_modalities if isinstance(name, str) and _matches(modality, name))
        return _key(frame_modalities.get(next(names, "")))
    node: Any = frame_modalities
    for part in modality.split("/"):
        node = node.get(part) if isinstance(node, dict) else None
    return _key(node)


def frame_format(frame_modalities: object, modality: str) -> str:
    """The format of a modality that is not nested; empty where none is given."""
    node = frame_modalities.get(modality) if isinstance(frame_modalities, dict) else None
    said = node.get("format") if isinstance(node, dict) else None
    return said if isinstance(said, str) else ""


def _key(node: Any) -> str | None:
    """The first value that is not the format; of nested modalities, that of the last."""
    if not isinstance(node, dict):
        return None
    nested = [value for value in node.values() if isinstance(value, dict)]
    if nested:
        return _key(nested[-1])
    value = next((value for key, value in node.items() if key != "format"), None)
    return value if isinstance(value, str) else None


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise SceneError(
            f"{pattern!r} is not a modality.",
            where="modality",
            why=f"it is no regular expression: {error}",
            fix="write depth, pred_mask/moge2 or depth|rendered_depth",
        ) from None
