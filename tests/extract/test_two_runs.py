"""Two runs on one store at the same time share the work, say so, and lose nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TWO_RUNS = Path(__file__).with_name("two_runs.py")
VIEWS = 7
"""Five of one bundle, two of another."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    done = subprocess.run(
        [sys.executable, TWO_RUNS, tmp_path_factory.mktemp("two")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return json.loads(done.stdout.splitlines()[-1])


def counts(runs, name):
    return [one[name] for one in runs]


@pytest.mark.parametrize("scene", ["same rename", "one after the other", "shared", "killed", "commands"])
def test_the_store_is_that_of_one_writer(scenes, scene):
    found = scenes[scene]
    assert (found["same"], found["faults"], found["unfinished"]) == (True, [], {})
    codes = counts(found["runs"], "code")
    assert codes == ([-9, 0] if scene == "killed" else [0, 0])


def test_without_locks_both_compute_and_the_second_says_what_it_found(scenes):
    first, second = scenes["one after the other"]["runs"]
    # The second had begun the bundle of five views, and came to the other when it was done.
    assert (first["computed"], second["computed"]) == (VIEWS, 5)
    assert "another run" not in first["said"]
    assert len(re.findall(r"another run wrote unit \d+ of \S+ meanwhile", second["said"])) == 1


def test_what_one_has_begun_is_left_to_it(scenes):
    first, second = scenes["shared"]["runs"]
    assert (first["computed"], first["beside"]) == (5, 2)
    assert (second["computed"], second["beside"]) == (2, 5)
    assert len(re.findall(r"run \S+ is writing to the same store", second["said"])) == 1
    assert second["said"].count("waiting for the units") == 1


def test_what_a_run_had_begun_that_died_is_done_by_the_other(scenes):
    _, second = scenes["killed"]["runs"]
    assert (second["computed"], second["beside"]) == (VIEWS, 0)


def test_two_commands_compute_each_view_once(scenes):
    said = counts(scenes["commands"]["runs"], "said")
    computed = [int(re.search(r"(\d+) computed", text)[1]) for text in said]
    assert sum(computed) == VIEWS
    assert all(f"{VIEWS} views" in text for text in said)
