"""The report of one run: its page, tables and files."""

from __future__ import annotations

import base64
import csv
import json
import re
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from .made_runs import SCENES, digest, headline, make_records, make_report, write_run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One report of a full run, used by the tests that only look at it."""
    root = tmp_path_factory.mktemp("report")
    folder = write_run(
        root / "run",
        make_records(),
        command="strata probe correspondence store=feats.zarr",
        config={"voxel": 0.05},
        provenance={"versions": {"torch": "9.8.7"}, "device": "CPU"},
    )
    members = ["left.png", "right.png"]
    rows = [{"digest": digest(scene, k, 0), "members": members} for scene in SCENES for k in range(4)]
    (root / "run/sets.json").write_text(json.dumps({"sets": rows}))
    (root / "run/pictures").mkdir()
    (root / "run/pictures/rooms.room0.0.vit_small.png").write_bytes(b"\x89PNG of room0")
    return make_report(root / "out", folder)


def test_all_files_are_written(files: dict[str, str]) -> None:
    assert sorted(files) == [f"report.{kind}" for kind in ("csv", "html", "json", "md", "tex")]


def test_ranking_measures_have_their_own_table(files: dict[str, str]) -> None:
    sections = json.loads(files["report.json"])["sections"]
    voxel, reference = (next(s for s in sections if s["protocol"] == p) for p in ("voxel", "reference"))
    assert reference["ranking"] == []
    rows = [row for row in voxel["ranking"] if row["encoder"] == "vit_small"]
    # In these records recall@1 is the highest where noncorr is, in another layer than the widest gap.
    assert [(row["layer"], row["best"], row["last"]) for row in rows] == [
        ("block2", True, False),
        ("norm", False, True),
    ]
    assert rows[0]["measures"]["recall_1"]["mean"] == pytest.approx(0.55)
    assert "average_precision" not in rows[0]["measures"]
    text = files["report.html"]
    assert text.count("recall@1 by layer, protocol voxel") == 1
    assert text.count("recall@1 by viewpoint angle, protocol voxel") == 1
    assert "recall@1 by layer, protocol reference" not in text
    (line,) = (line for line in files["report.md"].splitlines() if line.startswith("| vit_small | block2 |"))
    assert line.startswith("| vit_small | block2 | best | 0.550 [0.550, 0.550] |")
    assert line.endswith("| – |")


def test_means_are_those_of_the_records(files: dict[str, str]) -> None:
    wanted: dict[str, list[float]] = {}
    for record in make_records():
        chosen = (record.protocol, record.encoder, record.layer, record.metric)
        if chosen == ("voxel", "vit_small", "block5", "corr") and record.value is not None:
            wanted.setdefault(record.scene, []).append(record.value)
    expected = np.mean([np.mean(values) for values in wanted.values()])
    rows = list(csv.DictReader(StringIO(files["report.csv"])))
    (row,) = (
        row
        for row in rows
        if (row["protocol"], row["encoder"], row["layer"], row["metric"])
        == ("voxel", "vit_small", "block5", "corr")
    )
    assert float(row["mean"]) == pytest.approx(expected, abs=1e-6)
    assert float(row["low"]) < float(row["mean"]) < float(row["high"])
    assert (row["scenes"], row["units"], row["missing"]) == ("9", "35", "1")


def test_the_headline_has_the_best_and_the_last_layer_in_order(files: dict[str, str]) -> None:
    rows = [(row["encoder"], row["role"], row["layer"], row["best"], row["last"]) for row in headline(files)]
    assert rows == [
        ("oracle_world", "ceiling", "norm", True, True),
        ("vit_small", "real", "block8", True, False),
        ("vit_small", "real", "norm", False, True),
        ("oracle_constant", "floor", "norm", True, True),
    ]
    assert [row["leads"] for row in headline(files)] == [False, True, False, False]


def test_the_page_stands_alone(files: dict[str, str]) -> None:
    page = files["report.html"]
    assert not re.search(r"https?://|<script|<link|@import|url\((?!#)", page)
    assert "<svg" in page
    assert base64.b64encode(b"\x89PNG of room0").decode() in page


def test_the_page_shows_every_part(files: dict[str, str]) -> None:
    page = files["report.html"]
    for text in (
        "<b>vit_small</b>",
        "strata probe correspondence store=feats.zarr",
        "9.8.7",
        "5e1ec7",
        digest("vit_small")[:12],
        "97.0 %",
        "60–90°",
        "left.png, right.png",
        "its ceiling is lower",
        "View sets left out because they have no correspondences: 1.",
        "rooms · room0 · 0 · vit_small",
    ):
        assert text in page, text
    assert page.index("protocol voxel") < page.index("protocol reference")


def test_worst_sets_are_the_lowest_of_the_best_layer(files: dict[str, str]) -> None:
    values: dict[tuple[str, str], dict[str, float]] = {}
    for record in make_records():
        chosen = (record.protocol, record.encoder, record.layer)
        if chosen == ("voxel", "vit_small", "block8") and record.value is not None:
            values.setdefault((record.scene, record.set), {})[record.metric] = record.value
    expected = sorted(values, key=lambda unit: values[unit]["corr"] - values[unit]["noncorr"])[:5]
    worst = json.loads(files["report.json"])["sections"][0]["worst_sets"]
    assert [(row["scene"], row["set"]) for row in worst] == expected
    assert worst[0]["views"] == ["left.png", "right.png"]


def test_equal_records_give_equal_files(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", make_records(scenes=SCENES[:2], sets=2))
    assert make_report(tmp_path / "a", folder) == make_report(tmp_path / "b", folder)


def test_latex_and_markdown_hold_the_leader_in_bold(files: dict[str, str]) -> None:
    assert r"\textbf{vit\_small} & block8 &" in files["report.tex"]
    assert "| **vit_small** | real | block8 | best |" in files["report.md"]
