"""What a run says of itself: states, heartbeat, failures, and reasons for later runs."""

from __future__ import annotations

import json
import threading

import pytest
from strata.errors import SceneError, StoreError
from strata.extract import bundle_pass, run_log
from strata.extract.run_log import OtherReasons


def records(pipeline) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(pipeline.root.glob("runs/*.json"))]


def test_a_finished_run(pipeline):
    pipeline.add("a")
    summary = pipeline.extract()
    (record,) = records(pipeline)
    assert record["state"] == "finished"
    assert record["run"] == summary.run
    assert record["key"] == summary.key.folder
    assert record["layers"] == {"block0": "f16", "norm": "f16"}
    assert (record["views_to_do"], record["views_done"]) == (3, 3)
    assert record["bytes"] == summary.bytes > 0
    assert record["failures"] == []
    assert record["command"].startswith("strata extract run ")
    assert record["heartbeat"] >= record["started"]
    assert not list(pipeline.root.glob("runs/*.failed.jsonl"))


def test_it_runs_while_it_runs_and_is_interrupted_when_it_is(pipeline, monkeypatch):
    pipeline.add("a")
    states = []

    def stop(*args, **kwargs):
        states.extend(record["state"] for record in records(pipeline))
        raise KeyboardInterrupt

    monkeypatch.setattr("strata.extract.extraction.commit_bundle", stop)
    with pytest.raises(KeyboardInterrupt):
        pipeline.extract()
    assert states == ["running"]
    assert [record["state"] for record in records(pipeline)] == ["interrupted"]


def test_the_heart_beats(pipeline, monkeypatch):
    pipeline.add("a")
    beaten, write = threading.Event(), run_log.RunLog.write

    def counted(log):
        write(log)
        if threading.current_thread() is not threading.main_thread():
            beaten.set()

    monkeypatch.setattr(run_log, "HEARTBEAT_S", 0.001)
    monkeypatch.setattr(run_log.RunLog, "write", counted)
    monkeypatch.setattr("strata.extract.extraction.commit_bundle", lambda *a, **k: beaten.wait(10))
    pipeline.extract()
    assert beaten.is_set()
    assert [thread.name for thread in threading.enumerate() if "_beat" in thread.name] == []


def test_the_heart_beats_on_after_a_fault_of_the_disk(pipeline, monkeypatch):
    pipeline.add("a")
    beats, twice, write = [], threading.Event(), run_log.RunLog.write

    def failing_once(log):
        if threading.current_thread() is not threading.main_thread():
            beats.append(log.name)
            if len(beats) == 1:
                raise StoreError("the file cannot be written.")
            twice.set()
        write(log)

    monkeypatch.setattr(run_log, "HEARTBEAT_S", 0.001)
    monkeypatch.setattr(run_log.RunLog, "write", failing_once)
    monkeypatch.setattr("strata.extract.extraction.commit_bundle", lambda *a, **k: twice.wait(60))
    pipeline.extract()
    assert twice.is_set()


@pytest.fixture
def broken(pipeline, monkeypatch):
    pipeline.add("a")
    pipeline.add("b")
    prepare = bundle_pass.prepare

    def fail(scene, view, request):
        if (scene.id, view.name) in {("toy/b", "001"), ("toy/a", "002")}:
            raise SceneError(f"{view.name} cannot be decoded.")
        return prepare(scene, view, request)

    monkeypatch.setattr(bundle_pass, "prepare", fail)
    return pipeline


def test_failed_views_are_listed(broken):
    summary = broken.extract()
    path = broken.root / "runs" / f"{summary.run}.failed.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [
        {"scene": "toy/a", "view": "002", "layer": None, "why": "002 cannot be decoded."},
        {"scene": "toy/b", "view": "001", "layer": None, "why": "001 cannot be decoded."},
    ]
    (record,) = records(broken)
    bundle = record["bundles"][0]
    assert record["failures"] == [
        [bundle, 2, None, "002 cannot be decoded."],
        [bundle, 4, None, "001 cannot be decoded."],
    ]


def test_reasons_of_earlier_runs_are_of_the_same_key(broken):
    summary = broken.extract()
    (record,) = records(broken)
    assert OtherReasons(broken.root, summary.key.folder).now() == {
        (record["bundles"][0], 2, None): "002 cannot be decoded.",
        (record["bundles"][0], 4, None): "001 cannot be decoded.",
    }
    assert OtherReasons(broken.root, "other@000000000000").now() == {}


@pytest.mark.parametrize(
    "text", ["{", "[]", "7", '{"key": "KEY", "failures": [1]}', '{"key": "KEY", "failures": 1}']
)
def test_a_damaged_record_stops_nobody(broken, text):
    summary = broken.extract()
    (broken.root / "runs" / "0.json").write_text(text.replace("KEY", summary.key.folder))
    assert len(OtherReasons(broken.root, summary.key.folder).now()) == 2


def test_views_that_lack_a_field_are_no_failures(pipeline, colour):
    from dataclasses import replace

    pipeline.add("a")
    pipeline.change("a", lambda views: [replace(views[0], depth=None), *views[1:]])
    summary = pipeline.extract(colour(frozenset({"token_point_world"})), storage="f16")
    assert (summary.failed, summary.missing) == (0, 1)
    (record,) = records(pipeline)
    assert [failure[3] for failure in record["failures"]] == ["the view has no token_point_world"]
    assert not list(pipeline.root.glob("runs/*.failed.jsonl"))
