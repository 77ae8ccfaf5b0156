"""The command `strata store verify`: look, extract some views again, drop what is bad, tell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..configs.schema import VerifyConfig
from ..errors import ConfigError, counted
from ..progress import Progress
from ..store.feature_store import FeatureStore
from ..store.maintain.repair import repair as drop
from ..store.maintain.report import Fault, Report
from ..store.maintain.verify import bundle_folders, verify
from .encoders.base import Encoder
from .shards import ShardIndex

SHOWN = 50


def run(
    path: str,
    config: VerifyConfig,
    console: Console,
    *,
    recompute: int = 0,
    repair: bool = False,
    as_json: bool = False,
    encoder: Encoder | None = None,
) -> int:
    """The command: 0 when nothing is wrong, or when all of it was dropped; else 1.

    Args:
        path: the store.
        config: how views are extracted again.
        recompute: how many of each key.
        repair: drop what is bad.
        as_json: one document on stdout, progress on stderr.
        encoder: to extract with instead of the one that the key names (for one of your own).

    Raises:
        StrataError: this is no store, or what --recompute needs is not there.
    """
    root, told = Path(path), Console(stderr=True) if as_json else console
    index = _asked_shards(root, config) if recompute else None
    with Progress(told, "verify", bundle_folders(root), unit="folders") as progress:
        report = verify(root, progress)
    if recompute:
        _recompute(report, config, recompute, told, encoder, index)
    left = drop(report) if repair else report.faults
    if as_json:
        dropped = {"repaired": [fault.path for fault in report.faults if fault not in left]}
        console.file.write(json.dumps({**report.to_dict(), **dropped}, indent=2) + "\n")
    else:
        for line in _lines(report, left, repair):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 1 if left else 0


def _asked_shards(root: Path, config: VerifyConfig) -> ShardIndex | None:
    """The packed images, where they are needed; wrong words are told before the store is read."""
    from .recompute import asked_keys

    if config.shards is not None:
        asked_keys(FeatureStore.open(root), config.encoder)
        return ShardIndex.open(config.shards)
    if config.encoder and asked_keys(FeatureStore.open(root), config.encoder)[0].key.derived is not None:
        return None
    raise ConfigError(
        "--recompute needs the packed images.",
        where="shards",
        why="only derived features are made of what the store holds",
        fix="write shards=, the folder that `strata pack` wrote",
    )


def _recompute(
    report: Report,
    config: VerifyConfig,
    count: int,
    console: Console,
    encoder: Encoder | None,
    index: ShardIndex | None,
) -> None:
    from .recompute import recompute

    keys = 1 if config.encoder else len(FeatureStore.open(report.root).keys())
    with Progress(console, "recompute", count * keys) as progress:
        recompute(report, config, count, progress, encoder, index=index)


def _lines(report: Report, left: list[Fault], repaired: bool) -> list[str]:
    lines = [f"{fault.kind:<9} {fault.path}: {fault.what}" for fault in report.faults[:SHOWN]]
    if len(report.faults) > SHOWN:
        lines.append(f"and {len(report.faults) - SHOWN:,} more; --json names all")
    for key, found in report.recomputed.items():
        largest = ", ".join(f"{layer} {value:.2g}" for layer, value in found["largest_deviation"].items())
        again = counted(found["views"], "view")
        lines.append(f"{key}: {again} again, largest deviation: {largest or 'none'}")
        lines += [f"{key}: not compared: {what}" for what in found["not_compared"]]
    if report.unfinished:
        lines.append(
            f"{len(report.unfinished):,} parts are not finished; `strata store gc` tells which can go"
        )
    if report.live:
        lines.append(f"{', '.join(report.live)} writes to the store now; what it replaces may look wrong")
    looked_at = f"{counted(report.files, 'file')}, {report.bytes / 1e6:,.1f} MB"
    lines.append(f"{looked_at}: {counted(len(report.faults), 'fault')}")
    if repaired and len(left) < len(report.faults):
        lines.append("what was bad is dropped; the same `strata extract run` as before writes it anew")
    if repaired:
        lines += _left_alone(left)
    elif any(fault.drop for fault in report.faults):
        lines.append(
            "--repair drops what is bad; the same `strata extract run` as before then writes it anew"
        )
    return lines


def _left_alone(left: Sequence[Fault]) -> list[str]:
    """What --repair does not touch, and who can mend it."""
    foreign = sum(fault.kind == "foreign" for fault in left)
    others, lines = len(left) - foreign, []
    if foreign:
        files = counted(foreign, "foreign file")
        lines.append(f"left alone: {files}, since --repair drops only what the store can have anew:")
        lines.append("look at what is named foreign above, and move it out or remove it")
    if others:
        lines.append(f"left alone: {counted(others, 'fault')} that extracting again would not mend")
    return lines
