"""What a run says of itself while it lives: `runs/<run>.json` with a heartbeat, and its failures.

These files alone of a store are outside byte comparison: they hold times, host and process.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..store.atomic import read_json, write_atomic, write_json
from ..store.inside import check_there
from ..store.lock import exclusive
from ..store.processes import owner
from .bundle_pass import GONE
from .plan import Plan
from .tally import Tally

HEARTBEAT_S = 30.0
STAGES = ("decode_s", "wait_s", "encode_s", "keep_s", "write_s")
Reasons = dict[tuple[str, int, str | None], str]


class RunLog:
    """The record of one run; a context that beats until it is left.

    Args:
        root: the store.
        plan: what is done.
        tally: what was done so far.
        command: that reproduces it.
    """

    def __init__(self, root: Path, plan: Plan, tally: Tally, command: str) -> None:
        started = datetime.now(UTC)
        self.name = f"{started:%Y%m%dT%H%M%S.%f}-{plan.key.id}-{os.getpid()}"
        self.path = root / "runs" / f"{self.name}.json"
        self.tally, self._plan = tally, plan
        self._views = {part.bundle.id: (part.bundle, part.views) for part in plan.bundles}
        self._fixed = {
            "run": self.name,
            "owner": owner(),
            "started": started.isoformat(timespec="seconds"),
            "command": command,
            "key": plan.key.folder,
            "layers": plan.storages,
            "bundles": [part.bundle.id for part in plan.bundles],
            "views_to_do": plan.views_left,
        }
        self._state, self._written = "running", -1
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> RunLog:
        with exclusive(self._plan.root):
            self.write()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._stop.set()
        self._thread.join()
        self._state = "interrupted" if kind else "finished"
        try:
            self.write()
        except StoreError:
            # On a full disk the error that led here says more than this one.
            if kind is None:
                raise

    def before_write(self) -> None:
        """A failure's reason is on disk before the shard that lacks the view."""
        if len(self.tally.failures) != self._written:
            self.write()

    def write(self) -> None:
        with self._lock:
            self._written = len(self.tally.failures)
            seconds = {name: round(getattr(self.tally, name), 3) for name in STAGES}
            document = {
                **self._fixed,
                "state": self._state,
                "heartbeat": datetime.now(UTC).isoformat(timespec="seconds"),
                "views_done": self.tally.views,
                "bytes": self.tally.bytes,
                "timings": seconds,
                "failures": [[*where, why] for where, why in list(self.tally.failures.items())],
            }
            check_there(self._plan.root)
            write_json(self.path, document)
            self._write_failed()

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Views that should have features and do not, as `failed.jsonl` names them."""
        rows = []
        for (bundle_id, row, layer), why in list(self.tally.failures.items()):
            bundle, views = self._views[bundle_id]
            if why != GONE and not why.startswith("the view has no "):
                scene = next(scene.id for scene in bundle.scenes if scene.start <= row < scene.stop)
                rows.append({"scene": scene, "view": views[row].name, "layer": layer, "why": why})
        return rows

    def _write_failed(self) -> None:
        if rows := self.failed:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_atomic(self.path.with_name(f"{self.name}.failed.jsonl"), lines.encode())

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                self.write()
            except StoreError:
                # The work will meet the same fault and name it; if not, the run lives on and its heart beats.
                continue


class WorkerLog:
    """The failures that one of several workers met, on disk before the shards that lack the views.

    Args:
        root: the store.
        run: name of the run.
        key_folder: of the features.
    """

    def __init__(self, root: Path, run: str, key_folder: str) -> None:
        writer = owner().replace(":", "-")
        self._path = root / "runs" / f"{run}.{writer}.json"
        self._fixed = {"run": run, "owner": writer, "key": key_folder}
        self._failures: Reasons = {}
        self._lock = threading.Lock()

    def keep(self, failures: Reasons) -> None:
        """Nothing is written as long as no view failed."""
        with self._lock:
            if failures.items() <= self._failures.items():
                return
            self._failures.update(failures)
            rows = [[*where, why] for where, why in self._failures.items()]
            write_json(self._path, {**self._fixed, "state": "worker", "failures": rows})


class OtherReasons:
    """Why views of a key failed in other runs, earlier ones or beside this: their shards are there already.

    Args:
        root: the store.
        key_folder: of the features.
    """

    def __init__(self, root: Path, key_folder: str) -> None:
        self._root, self._key_folder = root, key_folder
        self._read: dict[Path, tuple[tuple[int, int], Reasons]] = {}

    def now(self) -> Reasons:
        """Records that did not change since they were last looked at are not read again."""
        for path in self._root.glob("runs/*.json"):
            # A record that cannot be read costs a reason its words, and no run its work.
            with contextlib.suppress(OSError):
                state = path.stat()
                version = state.st_ino, state.st_mtime_ns
                if path not in self._read or self._read[path][0] != version:
                    self._read[path] = version, _reasons(path, self._key_folder)
        return {where: why for path in sorted(self._read) for where, why in self._read[path][1].items()}


def _reasons(path: Path, key_folder: str) -> Reasons:
    reasons: Reasons = {}
    with contextlib.suppress(StoreError, AttributeError, TypeError, ValueError):
        document = read_json(path)
        if document.get("key") == key_folder:
            for bundle, row, layer, why in document.get("failures", ()):
                reasons[bundle, row, layer] = why
    return reasons
