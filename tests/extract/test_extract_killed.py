"""Processes that extract are killed while others read, plan and collect garbage; nothing is ever lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DEATHS = Path(__file__).with_name("deaths.py")


@pytest.mark.parametrize(
    ("kills", "moments"),
    [pytest.param(20, 0, id="few"), pytest.param(240, 200, id="many", marks=pytest.mark.slow)],
)
def test_what_is_killed_and_continued_is_as_if_it_never_was(tmp_path, kills, moments):
    done = subprocess.run(
        [sys.executable, DEATHS, tmp_path, str(kills), str(moments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    # The processes beside, too, say what went wrong: a layer in parts, a plan that could not be made.
    assert done.stderr == ""
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["differing"] == []
    assert found["killed"] >= kills
    assert found["steps"] > 4 * 100  # a hundred files, each written, synced, renamed, its folder synced
