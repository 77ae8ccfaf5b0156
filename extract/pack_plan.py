"""Which view goes into which shard, and at which byte: pure functions.

A shard is a tar of parts; a part is a run of views of one scene behind a header sample `scene-<part>`,
the first of which also holds the scene's covisibility. Scenes are kept whole where a shard can hold
them. The plan depends on the ordered scenes and their bytes alone, so a run that was interrupted and
started again plans the same shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..store.key import canonical_json, digest
from .pack_members import CheckedScene, Member
from .tar_write import tar_layout, tar_member_bytes

INDEX_FORMAT = {"format": "strata-shards", "version": 1}
SHARD_FORMAT = {"format": "strata-shard", "version": 1}


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """The views start:stop of a scene, part `number` of `count`."""

    scene: CheckedScene
    number: int
    count: int
    start: int
    stop: int

    @property
    def key(self) -> str:
        return f"{self.scene.folder}/scene-{self.number:04d}"

    @cached_property
    def members(self) -> dict[str, Member]:
        """All members by name in the order of the tar: the header sample, then the views."""
        header = Member.of_bytes(canonical_json(self._header()).encode(), "json")
        members = {f"{self.key}.scene.json": header}
        if self.number == 0 and self.scene.covisibility:
            members[f"{self.key}.covisibility.npy"] = self.scene.covisibility
        for position in range(self.start, self.stop):
            key = self.scene.view_key(position)
            for suffix, member in self.scene.views[position].members.items():
                members[f"{key}.{suffix}"] = member
        return members

    @cached_property
    def bytes(self) -> int:
        return sum(tar_member_bytes(name, member.size) for name, member in self.members.items())

    def _header(self) -> dict[str, Any]:
        frames = [view.view.name for view in self.scene.views]
        return {**self.scene.identity, "part": self.number, "parts": self.count, "frames": frames}

    def record(self, offsets: dict[str, int]) -> dict[str, Any]:
        """The part's entry of the shard's record."""
        scene, name = self.scene, f"{self.key}.covisibility.npy"
        shares = self.members.get(name)
        positions = range(self.start, self.stop)
        return {
            **scene.identity,
            "part": self.number,
            "parts": self.count,
            "covisibility": [offsets[name], shares.size, shares.sha256] if shares else None,
            "views": [scene.views[p].record(scene.view_key(p), offsets) for p in positions],
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardPlan:
    """One shard: what is in it, in order."""

    number: int
    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        return shard_name(self.number)

    @cached_property
    def members(self) -> dict[str, Member]:
        return {name: member for part in self.parts for name, member in part.members.items()}

    def record(self, sha256: str) -> dict[str, Any]:
        """What the index needs to know of the shard, whose file has that sha256.

        Two shards of equal records are equal byte by byte: `content` covers every member. A record
        whose `digest` is not that of the rest is damaged.
        """
        offsets, size = tar_layout((name, member.size) for name, member in self.members.items())
        record = {
            **SHARD_FORMAT,
            "name": self.name,
            "bytes": size,
            "sha256": sha256,
            "content": digest([[name, m.size, m.sha256] for name, m in self.members.items()]),
            "scenes": [part.record(offsets) for part in self.parts],
        }
        return {**record, "digest": record_digest(record)}


def record_digest(record: dict[str, Any]) -> str:
    """Over a shard's record without the digest that it may have."""
    return digest({name: value for name, value in record.items() if name != "digest"})


def plan_shards(scenes: Iterable[CheckedScene], shard_bytes: int) -> Iterator[ShardPlan]:
    """The shards of these scenes, each as soon as its last part is known.

    A shard is closed before a part that would bring its members beyond `shard_bytes`; so it is larger
    only where a single view with its header is.
    """
    number, parts, used = 0, [], 0
    for part in (part for scene in scenes for part in _parts_of(scene, shard_bytes)):
        if parts and used + part.bytes > shard_bytes:
            yield ShardPlan(number=number, parts=tuple(parts))
            number, parts, used = number + 1, [], 0
        parts.append(part)
        used += part.bytes
    if parts:
        yield ShardPlan(number=number, parts=tuple(parts))


def index_of(records: Sequence[dict[str, Any]], splits: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """The index of the shards with these records; splits keep the scenes that were packed."""
    scenes: dict[str, dict[str, Any]] = {}
    for shard, record in enumerate(records):
        for part in record["scenes"]:
            about = {name: value for name, value in part.items() if name not in ("part", "parts")}
            whole = scenes.setdefault(part["id"], {**about, "covisibility": None, "views": []})
            if part["covisibility"]:
                whole["covisibility"] = [shard, *part["covisibility"]]
            whole["views"] += [{**view, "shard": shard} for view in part["views"]]
    kept = {name: [scene for scene in ids if scene in scenes] for name, ids in splits.items()}
    return {
        **INDEX_FORMAT,
        "shards": [{name: record[name] for name in ("name", "bytes", "sha256")} for record in records],
        "scenes": [{**scene, "entry_digest": entry_digest(scene)} for scene in scenes.values()],
        "splits": {name: ids for name, ids in kept.items() if ids},
    }


def entry_digest(entry: dict[str, Any]) -> str:
    """Over a scene's entry of the index without the digest that it may have."""
    return digest({name: value for name, value in entry.items() if name != "entry_digest"})


def shard_name(number: int) -> str:
    return f"shard-{number:06d}.tar"


def _parts_of(scene: CheckedScene, shard_bytes: int) -> list[Part]:
    starts, used = [0], _header_bytes(scene, 0)
    for position in range(len(scene.views)):
        size = scene.view_bytes(position)
        if position > starts[-1] and used + size > shard_bytes:
            used = _header_bytes(scene, len(starts))
            starts.append(position)
        used += size
    stops = [*starts[1:], len(scene.views)]
    return [
        Part(scene=scene, number=number, count=len(starts), start=start, stop=stop)
        for number, (start, stop) in enumerate(zip(starts, stops, strict=True))
    ]


def _header_bytes(scene: CheckedScene, number: int) -> int:
    # How many parts there are is not known yet; the number's digits seldom change whole blocks.
    return Part(scene=scene, number=number, count=number + 1, start=0, stop=0).bytes
