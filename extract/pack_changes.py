"""What a pack is about to change in a folder that has one: pure, told before anything is rewritten."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ..errors import counted, first_few

MB = 1_000_000


def pack_changes(
    index: dict[str, Any] | None,
    before: dict[str, Any] | None,
    ids: Sequence[str],
    settings: dict[str, Any],
) -> str:
    """One sentence on why shards will be rewritten; empty where nothing says that any will.

    Args:
        index: of the finished pack that is there; None = there is none.
        before: the settings that it was made with; None = they are not known.
        ids: scenes that are packed now.
        settings: of this pack: `shard_bytes` and `max_side`.
    """
    if index is None:
        return ""
    reasons = [*_settings(before, settings), *_scenes(_ids(index), ids)]
    return f"{'; '.join(reasons)}: shards that come out differently are rewritten" if reasons else ""


def _settings(before: dict[str, Any] | None, now: dict[str, Any]) -> list[str]:
    if before is None:
        return []
    return [
        f"{_word(name)}={_told(name, value)} (it was packed with {_told(name, before.get(name))})"
        for name, value in now.items()
        if before.get(name) != value
    ]


def _scenes(before: Collection[str], now: Collection[str]) -> list[str]:
    new = [scene for scene in now if scene not in before]
    gone = [scene for scene in before if scene not in now]
    return [
        f"{counted(len(some), 'scene')} {what} ({first_few(some)})"
        for some, what in ((new, "more than before"), (gone, "of before left out"))
        if some
    ]


def _ids(index: dict[str, Any]) -> list[str]:
    scenes = index.get("scenes")
    found = [one.get("id") for one in scenes if isinstance(one, dict)] if isinstance(scenes, list) else []
    return [scene_id for scene_id in found if isinstance(scene_id, str)]


def _word(name: str) -> str:
    return "shard_mb" if name == "shard_bytes" else name


def _told(name: str, value: object) -> str:
    if name == "shard_bytes" and isinstance(value, int):
        return f"{value / MB:g}"
    return "none" if value is None else str(value)
