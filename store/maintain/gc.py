"""`strata store gc`: what nobody needs is listed, and removed on request."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ...errors import ConfigError, first_few
from ...progress import Progress
from ..atomic import remove, set_aside
from ..disk_faults import disk_faults
from ..inside import check_folders
from ..lock import exclusive
from .garbage import Garbage, find_garbage, find_resumable, weight
from .heartbeats import runs_begun

_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def gc(path: str, console: Console, *, older_than: str, delete: bool, as_json: bool) -> int:
    """The command: without `delete` nothing is removed."""
    root, before_s = Path(path), time.time() - seconds(older_than)
    check_folders(root)
    begun = runs_begun(root)
    garbage, resumable = find_garbage(root, before_s), find_resumable(root, before_s)
    told = Console(stderr=True) if as_json else console
    removed = collect(root, garbage, begun, told) if delete else []
    if as_json:
        names = [str(item.path.relative_to(root)) for item in removed]
        found = {"garbage": _rows(root, garbage), "resumable": _rows(root, resumable)}
        console.file.write(json.dumps({"store": str(root), **found, "removed": names}, indent=2) + "\n")
        return 0
    for line in [*_lines(root, garbage), *_kept(root, resumable, older_than)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if garbage and not delete:
        console.print("nothing was removed; --yes removes it", highlight=False)
    return 0


def collect(root: Path, garbage: Sequence[Garbage], begun: frozenset[str], console: Console) -> list[Garbage]:
    """Remove it, each thing at once for readers; returns what was removed.

    Args:
        root: the store.
        garbage: from `find_garbage`.
        begun: `runs_begun` of before. A run that began since may build on any of it, so from then on
            nothing is removed.
        console: where progress is shown.

    Raises:
        StoreError: the disk refuses.
    """
    removed = []
    with Progress(console, "gc", len(garbage), unit="items") as progress, disk_faults(root):
        for item in garbage:
            with exclusive(root):
                aside = _set_aside(item.path) if _still(item, root, begun) else None
            if aside is not None:
                remove(aside)
                removed.append(item)
            progress.advance()
    return removed


def seconds(age: str) -> float:
    """`7d`, `12h`, `30m`, `0s` in seconds.

    Raises:
        ConfigError: it is none of these.
    """
    match = re.fullmatch(r"([0-9]{1,9})([dhms])", age)
    if not match:
        raise ConfigError(
            f"--older-than {age} is no age.",
            where="--older-than",
            why="an age is a whole number of days, hours, minutes or seconds",
            fix="write 7d, 12h, 30m or 0s",
        )
    return int(match[1]) * _UNITS_S[match[2]]


def _still(item: Garbage, root: Path, begun: frozenset[str]) -> bool:
    """Whether it is what it was when it was found, and nobody has begun to build on it."""
    try:
        return weight(item.path) == (item.bytes, item.newest_s) and runs_begun(root) == begun
    except FileNotFoundError:
        return False


def _set_aside(path: Path) -> Path | None:
    """None where a writer swept what a dead one left in the same moment."""
    try:
        return set_aside(path)
    except FileNotFoundError:
        return None


def _rows(root: Path, items: Sequence[Garbage]) -> list[dict[str, Any]]:
    return [{**vars(item), "path": str(item.path.relative_to(root))} for item in items]


def _kept(root: Path, resumable: Sequence[Garbage], older_than: str) -> list[str]:
    """What is kept although it is not finished, and until when."""
    if not resumable:
        return []
    until_s = min(item.newest_s for item in resumable) + seconds(older_than)
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(until_s))
    size = sum(item.bytes for item in resumable)
    return [
        f"kept       {len(resumable):,} unfinished with {size:,} bytes: the same extraction continues them; "
        f"gc takes the first from {until} on, {older_than} after its last change (--older-than)",
        f"           {first_few(item.path.relative_to(root) for item in resumable)}",
    ]


def _lines(root: Path, garbage: Sequence[Garbage]) -> list[str]:
    if not garbage:
        return ["nothing can go"]
    by_reason: dict[tuple[str, str], list[Garbage]] = defaultdict(list)
    for item in garbage:
        by_reason[item.kind, item.why].append(item)
    lines = []
    for (kind, why), items in by_reason.items():
        size = sum(item.bytes for item in items)
        lost = "; the same extraction would continue them" if kind == "unfinished" else ""
        lines.append(f"{kind:<10} {len(items):,} with {size:,} bytes: {why}{lost}")
        lines.append(f"           {first_few(item.path.relative_to(root) for item in items)}")
    total = sum(item.bytes for item in garbage)
    return [*lines, f"together {len(garbage):,} with {total:,} bytes ({total / 1e6:,.1f} MB)"]
