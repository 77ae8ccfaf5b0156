"""Runs to report on: two oracles and one encoder, two protocols, nine scenes."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from strata.configs.schema import ReportConfig
from strata.probes.base import Record
from strata.probes.report import report

SCENES = [f"rooms/room{i}" for i in range(9)]
ENCODERS = {
    "oracle_world": {"norm": (0.97, 0.12)},
    "oracle_constant": {"norm": (1.0, 1.0)},
    "vit_small": {"block2": (0.71, 0.55), "block5": (0.74, 0.41), "block8": (0.69, 0.33), "norm": (0.6, 0.3)},
}
BINS = ("0-30", "30-60", "60-90")


def digest(*words: object) -> str:
    return hashlib.sha256(repr(words).encode()).hexdigest()


def one_record(**changes: Any) -> Record:
    base = Record(
        probe="correspondence",
        protocol="voxel",
        encoder="vit_small",
        key="a1" * 6,
        layer="norm",
        dataset="rooms",
        scene=SCENES[0],
        unit="set",
        set=digest(SCENES[0], 0)[:16],
        metric="corr",
        value=0.5,
        pairs="p0",
        selection="5e1ec7",
    )
    return replace(base, **changes)


def make_records(
    encoders: dict[str, dict[str, tuple[float, float]]] = ENCODERS,
    scenes: list[str] = SCENES,
    sets: int = 4,
    seed: int = 0,
) -> list[Record]:
    """Scores around the means above, shifted by set; set 1 of the first scene has no voxel score."""
    found = [scene_record(scene) for scene in scenes]
    questions = itertools.product(encoders.items(), ("voxel", "reference"), scenes, range(sets))
    for (encoder, layers), protocol, scene, k in questions:
        for layer, means in layers.items():
            record = one_record(
                protocol=protocol,
                encoder=encoder,
                key=digest(encoder)[:12],
                layer=layer,
                scene=scene,
                set=digest(scene, k, seed)[:16],
                pairs=digest(protocol, scene, k)[:12],
            )
            empty = (protocol, scene, k) == ("voxel", SCENES[0], 1)
            for metric, value in scores(encoder, protocol, means, digest(scene, k, encoder)).items():
                found.append(replace(record, metric=metric, value=None if empty else value))
    return found


def scene_record(scene: str) -> Record:
    alone = {"encoder": "", "key": "", "layer": "", "protocol": "", "set": "", "pairs": ""}
    return one_record(**alone, scene=scene, unit="scene", metric="depth_agreement", value=0.97)


def scores(encoder: str, protocol: str, means: tuple[float, float], salt: str) -> dict[str, float]:
    corr, noncorr = (mean * (1.0 if protocol == "voxel" else 0.8) for mean in means)
    if encoder != "oracle_constant":
        corr += np.random.default_rng(int(salt[:12], 16)).normal(0, 0.03)
    steps = enumerate(BINS if protocol == "voxel" else ())
    fall = 0.0 if encoder.startswith("oracle") else 0.06
    ranked = {"recall_1": noncorr, "recall_5": corr, "mutual_precision": corr, "auc": corr}
    by_angle = {f"{name}@{part}": corr - i * fall for i, part in steps for name in ("corr", "recall_1")}
    return {"corr": corr, "noncorr": noncorr, **(ranked if protocol == "voxel" else {}), **by_angle}


def write_run(folder: Path, records: list[Record], **config: Any) -> str:
    """A run folder with these records, and config.json where there is something to put into it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [record.to_json() for record in records]
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def make_report(out: Path, *folders: str, **options: Any) -> dict[str, str]:
    """{file name: text} of a report, after its exit code was 0."""
    console = Console(file=StringIO())
    assert report(list(folders), ReportConfig(out=str(out), **options), console) == 0
    return {path.name: path.read_text() for path in out.iterdir()}


def headline(files: dict[str, str], protocol: str = "voxel") -> list[dict[str, Any]]:
    sections = json.loads(files["report.json"])["sections"]
    return next(section["headline"] for section in sections if section["protocol"] == protocol)
