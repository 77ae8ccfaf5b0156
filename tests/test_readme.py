"""The README's walk-through works as written: console blocks in order, then the Python block."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
        "sets make",
        "sets ls",
        "extract plan",
        "extract run",
    )
    others = ("store ls", "store info", "probe correspondence")
    assert {*groups, *others} <= shown
    assert {"pack", "report", "doctor"} <= {name.split()[0] for name in shown}


def test_the_walk_through_runs(readme: str, tmp_path: Path):
    # `strata` is the checkout's, whether or not its script is on the path.
    script = tmp_path / "bin" / "strata"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m strata "$@"\n')
    script.chmod(0o755)
    environment = {**os.environ, "PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"}
    code = blocks(readme, "python")[0]
    for command in [*commands(readme), [sys.executable, "-c", code]]:
        ran = subprocess.run(
            command,
            shell=isinstance(command, str),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    assert (tmp_path / "report" / "report.html").stat().st_size > 0
