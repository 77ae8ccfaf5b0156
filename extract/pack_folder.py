"""The folder that is packed into: what is finished, what is replaced, and in which order.

A shard is finished when its record `shard-000000.json` is there, which is written after the tar; the
pack is finished when `index.json` is there, which is written last. What is replaced is first taken
back in the opposite order: the index, the record, then the tar. So whatever moment a run is killed at,
an index never speaks of other shards than those beside it, nor a record of another tar.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from ..errors import DiskFullError, SceneError
from ..store.atomic import fsync_folder, remove_abandoned, write_atomic
from ..store.key import canonical_json
from .pack_check import KnownScene
from .pack_members import Member
from .pack_plan import SHARD_FORMAT, ShardPlan, index_of, record_digest
from .packed_folder import INDEX
from .packed_scene import MALFORMED
from .tar_write import tar_chunks

AHEAD_MEMBERS = 16
SETTINGS = "settings.json"
_OURS = re.compile(r"(shard-[0-9]{6,})\.(tar|json)")


class ShardFolder:
    """A folder of shards while it is written.

    Attributes:
        path: the folder; it is made if needed.
        finished: records of the shards that were finished when it was opened, by shard name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        remove_abandoned(path)
        records = (_finished_record(record) for record in sorted(path.glob("shard-*.json")))
        self.finished = {record["name"]: record for record in records if record}

    @property
    def committed(self) -> bool:
        """Whether an index says that a pack is finished."""
        return (self.path / INDEX).exists()

    def index(self) -> dict[str, Any] | None:
        """The index of the pack that is finished, as far as it can be read; None where there is none."""
        return _document(self.path / INDEX)

    def settings(self) -> dict[str, Any] | None:
        """What the pack was made with; None where that is not known."""
        return _document(self.path / SETTINGS)

    def known_scenes(self) -> dict[str, KnownScene]:
        """The scenes that lie in finished shards with all their parts."""
        parts: dict[str, list[dict[str, Any]]] = {}
        for record in self.finished.values():
            for part in record["scenes"]:
                parts.setdefault(part["id"], []).append(part)
        return {
            scene_id: KnownScene(
                scene_scale_m=found[0]["scene_scale_m"],
                views=tuple(view for part in found for view in part["views"]),
            )
            for scene_id, found in parts.items()
            if len({(part["digest"], part["scene_scale_m"], part["parts"]) for part in found}) == 1
            and [part["part"] for part in found] == list(range(found[0]["parts"]))
        }

    def put(self, plan: ShardPlan, pool: Executor) -> tuple[dict[str, Any], bool]:
        """The shard's record, and whether the shard was there already.

        Args:
            plan: what is to be in it.
            pool: threads to read on; views that are made smaller are made when they are read.

        Raises:
            DiskFullError: there is no room; the shards before are finished.
            SceneError: a file of a scene changed since it was checked.
        """
        old = self.finished.get(plan.name)
        if old is not None and plan.record(old["sha256"]) == old:
            return old, True
        sha256 = hashlib.sha256()

        def chunks() -> Iterator[bytes]:
            for chunk in tar_chunks(_read_ahead(plan, pool)):
                sha256.update(chunk)
                yield chunk
            # The new bytes are written, under a temporary name; only now the old ones are given up.
            self._take_back([plan.name])

        self._write(self.path / plan.name, chunks())
        record = plan.record(sha256.hexdigest())
        self._write(_record_path(self.path / plan.name), [_text(record)])
        return record, False

    def commit(
        self,
        records: Sequence[dict[str, Any]],
        splits: dict[str, tuple[str, ...]],
        settings: dict[str, Any],
    ) -> bool:
        """Remove shards of an earlier pack beyond these, then write the index; False if all was there.

        The settings that the pack was made with lie beside it, for who packs into the folder again: equal
        shards have equal indices, whatever they were asked for with.
        """
        names = {record["name"] for record in records}
        ours = filter(None, (_OURS.fullmatch(path.name) for path in sorted(self.path.iterdir())))
        surplus = {f"{match[1]}.tar" for match in ours} - names
        if surplus:
            self._take_back(sorted(surplus))
            for name in surplus:
                (self.path / name).unlink(missing_ok=True)
        text, index = _text(index_of(records, splits)), self.path / INDEX
        if self.settings() != settings:
            self._write(self.path / SETTINGS, [_text(settings)])
        if index.exists() and index.read_bytes() == text:
            return False
        self._write(index, [text])
        return True

    def _take_back(self, names: Sequence[str]) -> None:
        """Remove the index, then the records of these shards."""
        (self.path / INDEX).unlink(missing_ok=True)
        fsync_folder(self.path)
        for name in names:
            _record_path(self.path / name).unlink(missing_ok=True)
        fsync_folder(self.path)

    def _write(self, path: Path, parts: Iterator[bytes] | list[bytes]) -> None:
        try:
            write_atomic(path, parts)
        except DiskFullError as error:
            raise DiskFullError(
                error.what,
                where=path,
                why="the shards before this one are finished; nothing half-written is left",
                fix="make room and run the same command again: it continues with this shard",
            ) from None


def _document(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, *MALFORMED):
        return None
    return document if isinstance(document, dict) else None


def _finished_record(path: Path) -> dict[str, Any] | None:
    """The record, if it is whole, of this version, and its tar is there in full length."""
    try:
        record = json.loads(path.read_bytes())
        if record["digest"] != record_digest(record):
            return None
        version = {name: record[name] for name in SHARD_FORMAT}
        tar = path.with_suffix(".tar")
        whole = record["name"] == tar.name and tar.stat().st_size == record["bytes"]
    except (OSError, *MALFORMED):
        return None
    return record if whole and version == SHARD_FORMAT else None


def _read_ahead(plan: ShardPlan, pool: Executor) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every member in order, a few of them read ahead."""
    waiting: deque[tuple[str, Future[bytes]]] = deque()
    for name, member in plan.members.items():
        waiting.append((name, pool.submit(_unchanged, member)))
        if len(waiting) > AHEAD_MEMBERS:
            first, data = waiting.popleft()
            yield first, data.result()
    while waiting:
        first, data = waiting.popleft()
        yield first, data.result()


def _unchanged(member: Member) -> bytes:
    data = member.blob.read()
    if hashlib.sha256(data).hexdigest() != member.sha256:
        raise SceneError(
            "the file changed while it was being packed.",
            where=member.blob.where,
            why=f"{member.size:,} bytes were checked, now there are {len(data):,} others",
            fix="run the same command again when the scenes are at rest",
        )
    return data


def _record_path(tar: Path) -> Path:
    return tar.with_suffix(".json")


def _text(document: dict[str, Any]) -> bytes:
    return canonical_json(document).encode() + b"\n"
