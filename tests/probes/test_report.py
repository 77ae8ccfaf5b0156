"""The report on synthetic runs: two oracles and one encoder, two protocols, nine scenes."""

from __future__ import annotations

import base64
import csv
import hashlib
import itertools
import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from strata.configs.schema import ReportConfig
from strata.errors import ProbeError
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
