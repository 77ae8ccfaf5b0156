"""What a verification found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that is not as it was written.

    Attributes:
        path: relative to the store.
        kind: damaged | missing | metadata | foreign | numbers.
        what: one sentence.
        drop: files that are removed, in this order, so that the next extraction writes them anew; what
            makes a group visible comes first.
    """

    path: str
    kind: str
    what: str
    drop: tuple[str, ...] = ()


@dataclass
class Report:
    """Of a whole store.

    Attributes:
        root: the store.
        files, bytes: that were looked at.
        faults: in order of path.
        unfinished: by path, what an extraction has not finished or left behind; no fault.
        live: names of runs that write to the store now.
        recomputed: by layer, the largest deviation of what was extracted again.
    """

    root: Path
    files: int = 0
    bytes: int = 0
    faults: list[Fault] = field(default_factory=list)
    unfinished: dict[str, str] = field(default_factory=dict)
    live: tuple[str, ...] = ()
    recomputed: dict[str, Any] = field(default_factory=dict)

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def fault(self, path: Path, kind: str, what: str, drop: Iterable[Path] = ()) -> None:
        """Note a fault of a file."""
        dropped = tuple(dict.fromkeys(map(self.relative, drop)))
        self.faults.append(Fault(path=self.relative(path), kind=kind, what=what, drop=dropped))

    def to_dict(self) -> dict[str, Any]:
        return {
            "store": str(self.root),
            "files": self.files,
            "bytes": self.bytes,
            "faults": [{**vars(fault), "drop": list(fault.drop)} for fault in self.faults],
            "unfinished": self.unfinished,
            "live": list(self.live),
            "recomputed": self.recomputed,
        }
