"""Which encoders are compared, and in what part: floors, derived features, several keys and runs."""

from __future__ import annotations

import base64
import itertools
import json
from dataclasses import replace
from pathlib import Path

from .made_runs import ENCODERS, SCENES, digest, headline, make_records, make_report, one_record, write_run


def test_marks_are_shown_from_eight_scenes_on(tmp_path: Path) -> None:
    encoders = {"strong": {"norm": (0.8, 0.2)}, "weak": {"norm": (0.6, 0.3)}}
    for scenes, mark in ((9, True), (7, False)):
        folder = write_run(tmp_path / f"run{scenes}", make_records(encoders, SCENES[:scenes]))
        files = make_report(tmp_path / f"out{scenes}", folder)
        marked = {row["encoder"]: row["marked"] for row in headline(files)}
        assert marked == {"strong": False, "weak": mark}
        assert ("no marks of significance" in files["report.html"]) is not mark


def test_random_weights_are_a_floor_and_lead_nothing(tmp_path: Path) -> None:
    records = make_records({"vit_tiny": {"norm": (0.9, 0.1)}, "vit_small": {"norm": (0.7, 0.3)}}, SCENES[:2])
    folder = write_run(tmp_path / "run", records, provenance={"weights": {"vit_tiny": "random:0"}})
    rows = {row["encoder"]: row for row in headline(make_report(tmp_path / "out", folder))}
    assert rows["vit_tiny"]["role"] == "random"
    assert rows["vit_small"]["leads"]


def test_derived_features_have_the_roles_of_their_parents(tmp_path: Path) -> None:
    roles = {
        "vit_small": "real",
        "vit_small-pca16": "real",
        "vit_small+oracle_world": "oracle",
        "oracle_position-l2": "oracle",
        "vit_random+vit_small": "real",
        "vit_tiny-pca16": "random",
    }
    records = make_records({name: {"norm": (0.9, 0.1)} for name in roles}, SCENES[:2], sets=2)
    folder = write_run(tmp_path / "run", records, provenance={"weights": {"vit_tiny-pca16": "random:0"}})
    rows = headline(make_report(tmp_path / "out", folder))
    assert {row["encoder"]: row["role"] for row in rows} == roles


def test_one_name_with_two_keys_is_two_encoders(tmp_path: Path) -> None:
    records = make_records({"vit_small": {"norm": (0.7, 0.3)}}, SCENES[:2], sets=2)
    others = [replace(record, key="b2" * 6) for record in records if record.encoder]
    folders = write_run(tmp_path / "a", records), write_run(tmp_path / "b", others)
    names = {row["encoder"] for row in headline(make_report(tmp_path / "out", *folders))}
    assert names == {f"vit_small@{digest('vit_small')[:12]}", f"vit_small@{'b2' * 6}"}


def test_runs_of_other_encoders_and_scenes_join(tmp_path: Path) -> None:
    records = make_records(scenes=SCENES[:2], sets=2)
    parts = [
        [record for record in records if (record.encoder == "vit_small", record.scene == SCENES[0]) == chosen]
        for chosen in itertools.product((True, False), repeat=2)
    ]
    folders = [write_run(tmp_path / f"run{i}", part) for i, part in enumerate(parts)]
    joined = make_report(tmp_path / "joined", *folders, folders[0])
    whole = make_report(tmp_path / "whole", write_run(tmp_path / "run", records))
    assert joined["report.csv"] == whole["report.csv"]


def test_an_encoder_without_any_value_is_named(tmp_path: Path) -> None:
    silent = [one_record(encoder="mum", set=digest(SCENES[0], 0, 0)[:16], pairs="", value=None)]
    folder = write_run(tmp_path / "run", make_records(ENCODERS, SCENES[:1], sets=1) + silent)
    assert "Encoders without any value: mum." in make_report(tmp_path / "out", folder)["report.html"]


def test_measures_of_other_probes_are_listed(tmp_path: Path) -> None:
    records = [one_record(probe="depth", protocol="linear", metric="rmse_m", scene=s) for s in SCENES[:3]]
    page = make_report(tmp_path / "out", write_run(tmp_path / "run", records))["report.html"]
    assert "rmse_m" in page


def test_words_from_runs_cannot_become_markup(tmp_path: Path) -> None:
    records = [one_record(encoder="<i>x</i>", metric=metric) for metric in ("corr", "noncorr")]
    folder = write_run(tmp_path / "run", records, command="a <b> & c")
    page = make_report(tmp_path / "out", folder)["report.html"]
    assert "<i>x" not in page
    assert "a &lt;b&gt; &amp; c" in page


def test_the_index_names_captions_and_order(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [one_record()])
    (tmp_path / "run/pictures").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "run/pictures" / name).write_bytes(name.encode())
    (tmp_path / "secret.png").write_bytes(b"secret")
    index = [{"file": "b.png", "caption": "second"}, {"file": "a.png"}, {"file": "../../secret.png"}]
    (tmp_path / "run/pictures/index.json").write_text(json.dumps(index))
    page = make_report(tmp_path / "out", folder)["report.html"]
    assert page.index("<b>second</b>") < page.index("<b>a</b>")
    assert base64.b64encode(b"secret").decode() not in page
