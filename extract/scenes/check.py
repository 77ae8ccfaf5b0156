"""`strata scenes check`: every fault of every scene at once, what mends it, and what a scene is good for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ...configs.schema import CheckConfig
from ...errors import ConfigError, SceneError, counted
from .check_page import write_page
from .check_report import Examination, Fault, Report
from .examine import examined
from .inspection import Faults
from .mend import write_mended
from .open import asked_scenes
from .scene import SceneSource

COVISIBILITY = ("keep", "make")


def check(config: CheckConfig, console: Console) -> int:
    """Prints a report per scene; with `out`, a page; with `fix`, corrected copies.

    Returns:
        1 if there are faults, else 0.

    Raises:
        SceneError: there are no scenes.
        ConfigError: an option is wrong.
    """
    _check_options(config)
    source = asked_scenes(config)
    reports: list[Report] = []
    pages = []
    for scene_id in source.ids():
        found = examined(source, scene_id)
        reports.append(found.report)
        console.print(str(found.report), markup=False, highlight=False, soft_wrap=True)
        if config.fix:
            _mend(found, Path(config.fix), config.covisibility == "make", console)
        if config.out:
            pages.append(found.section(config.views))
    if config.out:
        path = write_page(pages, Path(config.out))
        console.print(f"page: {path}", markup=False, highlight=False)
    if config.fix:
        _write_lists(source, Path(config.fix))
    faults, broken = sum(len(r.faults) for r in reports), sum(bool(r.faults) for r in reports)
    console.print(
        f"{counted(len(reports), 'scene')}, {counted(faults, 'fault')} in {broken:,} of them", highlight=False
    )
    return 1 if faults else 0


def check_scene(source: SceneSource, scene_id: str) -> list[Fault]:
    """Every fault of a scene; none of them hides another."""
    return list(examine(source, scene_id).faults)


def examine(source: SceneSource, scene_id: str) -> Report:
    """Faults, depth agreement and uses of a scene."""
    return examined(source, scene_id).report


def _check_options(config: CheckConfig) -> None:
    if config.covisibility not in COVISIBILITY:
        raise ConfigError(
            f"covisibility={config.covisibility} is not known.", where="covisibility", fix="keep or make"
        )
    if config.covisibility == "make" and not config.fix:
        raise ConfigError(
            "covisibility=make has no place to write to.",
            where="covisibility",
            why="what was read is never changed",
            fix="add fix=OUT, a folder for the copies",
        )
    if config.fix and Path(config.fix).resolve() in _above(Path(config.scenes).resolve()):
        raise ConfigError(
            "fix= names the folder that is read.",
            where=f"fix={config.fix}",
            why="what was read is never changed",
            fix="give another folder",
        )


def _above(path: Path) -> Sequence[Path]:
    return (path, *path.parents[:2])


def _mend(found: Examination, out: Path, make: bool, console: Console) -> None:
    """Writes the copy and says what was done."""
    if found.scene is None or not len(found.scene):
        console.print("  copy     none: nothing can be read", highlight=False)
        return
    faults = Faults()
    copy = (found.scene, found.diagnosis.changes, found.doubles, out)
    done = faults.attempt(lambda: write_mended(*copy, make=make))
    place = out / found.scene.dataset / found.scene.name
    text = f"{place}{''.join(f'{chr(10)}           - {step}' for step in done or ())}"
    console.print(
        f"  copy     {text if done is not None else faults.found[0]}", markup=False, highlight=False
    )


def _write_lists(source: SceneSource, out: Path) -> None:
    """The lists of splits, where WAI looks for them."""
    try:
        splits = source.splits()
    except SceneError:
        return  # `scenes ls` tells what is wrong with them
    for name, ids in splits.items():
        split, _, dataset = name.partition("/")
        path = out / "metadata" / split / f"{dataset}_scene_list_{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([scene_id.partition("/")[2] for scene_id in ids]) + "\n")
