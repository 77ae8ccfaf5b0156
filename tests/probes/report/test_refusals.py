"""Runs that cannot be compared are refused, unless asked for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from strata.errors import ProbeError

from .made_runs import SCENES, make_records, make_report, one_record, write_run


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"neither records\.jsonl"):
        make_report(tmp_path / "out", str(tmp_path))


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"probe": "correspondence"}', one_record().to_json().replace("0.5", "NaN"), "null"],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str) -> None:
    folder = write_run(tmp_path / "run", [one_record()])
    with (tmp_path / "run/records.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ProbeError, match=re.escape("records.jsonl, line 2")):
        make_report(tmp_path / "out", folder)


def test_other_token_pairs_are_refused_unless_asked_for(tmp_path: Path) -> None:
    records = make_records({"vit_small": {"norm": (0.7, 0.3)}, "mum": {"norm": (0.7, 0.3)}}, SCENES[:2])
    others = [replace(record, pairs="other") for record in records if record.encoder == "mum"]
    first = write_run(tmp_path / "a", [record for record in records if record.encoder != "mum"])
    second = write_run(tmp_path / "b", others)
    with pytest.raises(ProbeError, match=r"asked about other token pairs[^$]*pairs \w+ in .*a, other in .*b"):
        make_report(tmp_path / "out", first, second)
    page = make_report(tmp_path / "out", first, second, allow_mixed_sets=True)["report.html"]
    assert "may be mixed" in page


@pytest.mark.parametrize("encoder", ["mum", "vit_small"])
def test_other_sets_are_refused_unless_asked_for(tmp_path: Path, encoder: str) -> None:
    """Of another encoder, or of the same one run again with another seed."""
    folder = write_run(tmp_path / "a", make_records({"vit_small": {"norm": (0.7, 0.3)}}, SCENES[:2]))
    records = make_records({encoder: {"norm": (0.8, 0.3)}}, SCENES[:2], seed=1)
    other = write_run(tmp_path / "b", [replace(record, pairs="") for record in records])
    with pytest.raises(ProbeError, match="scored on other view sets"):
        make_report(tmp_path / "out", folder, other)
    page = make_report(tmp_path / "out", folder, other, allow_mixed_sets=True)["report.html"]
    assert "may be mixed" in page


def test_encoders_on_other_scenes_are_refused(tmp_path: Path) -> None:
    records = make_records({"a": {"norm": (0.7, 0.3)}, "b": {"norm": (0.7, 0.3)}}, SCENES[:3], sets=1)
    kept = [record for record in records if (record.encoder, record.scene) != ("b", SCENES[0])]
    with pytest.raises(ProbeError, match="1 only in the first, 0 only in the second; scenes rooms/room0"):
        make_report(tmp_path / "out", write_run(tmp_path / "run", kept))


def test_two_values_of_one_question_are_refused(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / str(value), [one_record(value=value)]) for value in (0.5, 0.6)]
    with pytest.raises(ProbeError, match=r"0\.5 and 0\.6 for the same feature key"):
        make_report(tmp_path / "out", *folders)


def test_nothing_but_nulls_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [one_record(value=None)])
    with pytest.raises(ProbeError, match="nothing is left to show"):
        make_report(tmp_path / "out", folder)
