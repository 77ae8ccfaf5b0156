"""When runs may stand side by side: they asked the same questions about the same view sets."""

from __future__ import annotations

from collections import defaultdict

from ..errors import ProbeError, first_few
from .base import Record
from .report_load import Run

Asked = dict[str, set[tuple[str, str]]]
"""{who: its (scene, set digest)}."""


def check_pairs(runs: list[Run]) -> None:
    """Every question (probe, protocol, scene, set) was about the same token pairs in all runs.

    Raises:
        ProbeError: two records of one question have other `pairs`.
    """
    asked: dict[tuple[str, ...], tuple[str, Record]] = {}
    for run in runs:
        for record in run.records:
            if record.pairs:
                question = (record.probe, record.protocol, record.scene, record.set)
                folder, first = asked.setdefault(question, (run.folder, record))
                if first.pairs != record.pairs:
                    raise _other_pairs((folder, first), (run.folder, record))


def check_sets(runs: list[Run]) -> None:
    """Runs that share a scene share its sets, and all encoders and layers saw the same sets.

    Raises:
        ProbeError: they differ.
    """
    by_scene: dict[str, Asked] = defaultdict(lambda: defaultdict(set))
    by_protocol: dict[str, Asked] = defaultdict(lambda: defaultdict(set))
    for run in runs:
        for record in run.records:
            if record.unit == "set" and record.encoder:
                protocol, unit = f"{record.probe} {record.protocol}", (record.scene, record.set)
                by_scene[f"{protocol}, {record.scene}"][run.folder].add(unit)
                by_protocol[protocol][f"{record.encoder}@{record.key} {record.layer}"].add(unit)
    for where, asked in [*by_scene.items(), *by_protocol.items()]:
        _check_equal(where, asked)


def _check_equal(where: str, asked: Asked) -> None:
    (first, expected), *others = asked.items()
    for name, found in others:
        if found != expected:
            raise _other_sets(where, (first, expected), (name, found))


def _other_pairs(one: tuple[str, Record], two: tuple[str, Record]) -> ProbeError:
    (folder_a, a), (folder_b, b) = one, two
    return ProbeError(
        f"{a.encoder}@{a.key} and {b.encoder}@{b.key} were asked about other token pairs.",
        where=f"{a.probe} {a.protocol}, {a.scene}, set {a.set}",
        why=f"pairs {a.pairs} in {folder_a}, {b.pairs} in {folder_b}: other voxels, token grids or geometry",
        fix="probe both with the same voxel and grid, or give allow_mixed_sets=true",
    )


def _other_sets(where: str, *two: tuple[str, set[tuple[str, str]]]) -> ProbeError:
    (a, sets_a), (b, sets_b) = two
    scenes = sorted({scene for scene, _ in sets_a ^ sets_b})
    return ProbeError(
        f"{a} and {b} were scored on other view sets.",
        where=where,
        why=f"{len(sets_a & sets_b):,} sets in common, {len(sets_a - sets_b):,} only in the first, "
        f"{len(sets_b - sets_a):,} only in the second; scenes {first_few(scenes, most=3)}",
        fix="probe with the same `sets=FILE`, or give allow_mixed_sets=true",
    )
