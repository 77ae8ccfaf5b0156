"""`log.jsonl`: one row per step and per validation, appended and flushed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "log.jsonl"
RUN = "run.json"
"""Beside it: options, versions, the command and the number of steps."""


class Log:
    """The log of a run.

    Args:
        folder: of the run.
        keep_bytes: how much of an earlier log stays: what was there when the checkpoint was written. The rows
            behind it are of steps that are done again.
    """

    def __init__(self, folder: Path, keep_bytes: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / NAME).open("ab")
        # A log that somebody shortened is not filled up with zeros.
        self._file.truncate(min(keep_bytes, self._file.seek(0, os.SEEK_END)))

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row of JSON values."""
        self._file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def settle(self) -> int:
        """Bring all rows to the disk; returns how many bytes they are."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's log; a last one that was cut off is left out."""
    lines = (folder / NAME).read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]
