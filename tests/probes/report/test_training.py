"""Training runs in the report: finished ones, those that still run, those that measured nothing."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from strata.configs.schema import ReportConfig
from strata.errors import ProbeError
from strata.probes.base import Record
from strata.probes.report import report


def training_run(folder: Path, *, steps: int = 4, planned: int | None = 4, validates: bool = True) -> str:
    """A folder as the training loop leaves it: the loss falls from 8 to 8 / steps, an AUC rises from 0."""
    folder.mkdir(parents=True)
    rows = [{"kind": "step", "step": k, "epoch": 0, "loss": 8.0 / k, "lr": 1e-3} for k in range(1, steps + 1)]
    if validates:
        rows.insert(0, {"kind": "validation", "step": 0, "epoch": 0, "loss": 9.0, "pose_auc_30": 0.0})
        rows.append({"kind": "validation", "step": steps, "epoch": 1, "loss": 2.5, "pose_auc_30": 61.25})
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    about = {"command": f"strata train vggt out={folder.name}", "options": {"lr": 1e-3}, "versions": {}}
    (folder / "run.json").write_text(json.dumps(about | ({"steps": planned} if planned else {})))
    return str(folder)


def probe_run(folder: Path) -> str:
    fields: dict[str, Any] = {"probe": "correspondence", "protocol": "voxel", "encoder": "vit", "key": "a1b2"}
    unit: dict[str, Any] = {"dataset": "rooms", "scene": "rooms/a", "unit": "set", "set": "5e7", "pairs": "p"}
    values = {"corr": 0.75, "noncorr": 0.25}
    records = [
        Record(**fields, **unit, layer="norm", metric=metric, value=value, selection="f")
        for metric, value in values.items()
    ]
    folder.mkdir(parents=True)
    (folder / "records.jsonl").write_text("".join(f"{record.to_json()}\n" for record in records))
    return str(folder)


def made(out: Path, *folders: str) -> tuple[dict[str, str], str]:
    """{file name: text} of a report, and what it printed."""
    printed = StringIO()
    assert report(list(folders), ReportConfig(out=str(out)), Console(file=printed, width=200)) == 0
    return {path.name: path.read_text() for path in out.iterdir()}, printed.getvalue()


def test_a_training_stands_beside_probes(tmp_path: Path) -> None:
    folders = training_run(tmp_path / "tuned"), probe_run(tmp_path / "correspondence")
    files, printed = made(tmp_path / "out", *folders)
    page = files["report.html"]
    assert "Which features agree across views?" in page
    assert 'aria-label="loss by step"' in page
    assert 'aria-label="pose_auc_30 by step"' in page
    assert "finished: 4 steps" in page
    assert "61.25" in page
    assert "strata train vggt out=tuned" in page
    assert "| pose_auc_30 | 0 → 61.25 |" in files["report.md"]
    assert "- tuned: finished: 4 steps, loss 8 → 2" in files["report.md"]
    assert "training   tuned, finished: 4 steps" in printed
    document = json.loads(files["report.json"])
    assert document["training"][0]["validations"][-1]["pose_auc_30"] == 61.25
    assert document["sections"][0]["protocol"] == "voxel"


def test_training_runs_alone_make_a_page(tmp_path: Path) -> None:
    page = made(tmp_path / "out", training_run(tmp_path / "tuned"))[0]["report.html"]
    assert "How training went" in page
    assert "0 encoders" not in page
    assert "Feature keys" not in page


def test_runs_share_their_charts_and_keep_their_colours(tmp_path: Path) -> None:
    """The one that measured nothing has no line in the charts of measures; the other's colour stays."""
    silent = training_run(tmp_path / "silent", steps=2, validates=False)
    page = made(tmp_path / "out", silent, training_run(tmp_path / "tuned"))[0]["report.html"]
    assert page.count("by step") == 2
    loss, auc = page.split('aria-label="')[1:3]
    assert "#0072b2" in loss
    assert "#d55e00" in loss
    assert "#0072b2" not in auc.split("</svg>")[0]
    assert "#d55e00" in auc


def test_a_run_that_is_not_finished_says_so(tmp_path: Path) -> None:
    files, _ = made(tmp_path / "out", training_run(tmp_path / "tuned", steps=3, planned=1200))
    assert "not finished: 3 of 1,200 steps" in files["report.html"]
    old, _ = made(tmp_path / "old", training_run(tmp_path / "older", steps=3, planned=None))
    assert "older: 3 steps" in old["report.md"]


def test_a_run_without_held_out_sets_says_so(tmp_path: Path) -> None:
    files, _ = made(tmp_path / "out", training_run(tmp_path / "tuned", validates=False))
    assert "Nothing was measured on held-out view sets" in files["report.html"]
    assert "held out" not in files["report.md"]


def test_a_run_before_its_first_step(tmp_path: Path) -> None:
    folder = training_run(tmp_path / "tuned", steps=0, validates=False)
    assert "not finished: 0 of 4 steps" in made(tmp_path / "out", folder)[0]["report.html"]


def test_two_runs_of_one_name_go_by_their_folders(tmp_path: Path) -> None:
    folders = [training_run(tmp_path / part / "tuned") for part in ("a", "b")]
    markdown = made(tmp_path / "out", *folders, folders[0])[0]["report.md"]
    assert f"| held out | {folders[0]} | {folders[1]} |" in markdown


def test_markup_in_a_log_stays_text(tmp_path: Path) -> None:
    folder = training_run(tmp_path / "tuned")
    with (tmp_path / "tuned" / "log.jsonl").open("a") as file:
        file.write('{"kind": "validation", "step": 5, "epoch": 2, "<script>": 1.0}\n')
    assert "<script>" not in made(tmp_path / "out", folder)[0]["report.html"]


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"kind": "step"}'])
def test_a_malformed_log_is_named(tmp_path: Path, line: str) -> None:
    folder = training_run(tmp_path / "tuned")
    with (tmp_path / "tuned" / "log.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ProbeError, match=r"malformed[\s\S]*tuned"):
        made(tmp_path / "out", folder)


def test_no_folder_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="no folder is given"):
        made(tmp_path / "out")
