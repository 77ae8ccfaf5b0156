"""The README's walk-through works as written: console blocks in order, then the Python block."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from strata.cli import app
from strata.extract.encoders.listing import markdown
from strata.extract.encoders.presets import preset_names
from strata.extract.encoders.registry import describe
from typer.testing import CliRunner

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
KINDS = {"console", "python", "text"}


def blocks(readme: str, kind: str) -> list[str]:
    return [text for found, text in FENCE.findall(readme) if found == kind]


def commands(readme: str) -> list[str]:
    """The lines `$ ...` of all console blocks."""
    lines = [line for block in blocks(readme, "console") for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


@pytest.fixture
def readme(root: Path) -> str:
    return (root / "README.md").read_text()


def test_every_block_says_whether_it_is_run(readme: str):
    assert {kind for kind, _ in FENCE.findall(readme)} == KINDS


def test_every_command_is_shown(readme: str):
    shown = {" ".join(line.split()[1:3]) for line in commands(readme)}
    groups = (
        "scenes synth",
        "scenes ls",
        "scenes check",
        "scenes convert",
        "encoders ls",
        "encoders info",
        "sets make",
        "sets ls",
        "extract plan",
        "extract run",
    )
    others = (
        "store ls",
        "store info",
        "store export",
        "store verify",
        "store gc",
        "store migrate",
        "probe correspondence",
        "train vggt",
    )
    assert {*groups, *others} <= shown
    assert {"pack", "reconstruct", "report", "doctor"} <= {name.split()[0] for name in shown}


def test_the_table_of_encoders_is_current(readme: str):
    assert markdown(describe(name) for name in preset_names()) in readme


def test_the_walk_through_runs(readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for command in commands(readme):
        # In this process: starting one for each command would import torch a dozen times.
        program, *words = shlex.split(command)
        assert program == "strata"
        result = CliRunner().invoke(app, words, prog_name="strata")
        assert result.exit_code == 0, f"{command}\n{result.output}"
    for code in blocks(readme, "python"):
        subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "report" / "report.html").stat().st_size > 0
