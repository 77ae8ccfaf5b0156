"""Curves, and the trackers that are asked for."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from strata.errors import TrainError
from strata.store.atomic import write_json
from strata.train.curve_panels import BINS, panels
from strata.train.curves import panel_svg, write_curves
from strata.train.log import Log
from strata.train.trackers import open_trackers


def step(number: int, loss: float | None, **more) -> dict:
    times = {"lr": 1e-3, "items_per_s": 5.0, "wait_share": 0.1, "grad_norm/a*": 1.0, "grad_norm/*": 2.0}
    return {"kind": "step", "step": number, "epoch": 0, "loss": loss, "loss_depth": 1.0, **times, **more}


def test_panels_hold_every_value_once():
    rows = [step(k, 100.0 / k) for k in range(1, 1001)]
    rows += [{"kind": "validation", "step": 500, "epoch": 1, "loss": 2.0, "auc": 0.5}]
    found = {panel.title: panel for panel in panels(rows)}
    assert next(iter(found)) == "loss"
    assert set(found) == {
        "loss",
        "loss_depth",
        "auc",
        "learning rate",
        "items per second",
        "share of time waiting for data",
        "norm of the gradient",
    }
    train, valid = found["loss"].lines
    assert len(train.mean) == BINS
    assert train.high[0] == 100.0
    assert train.low[-1] == 0.1
    values = np.array([100.0 / k for k in range(1, 1001)])
    counts = np.diff([*np.linspace(0, 1000, BINS, endpoint=False).astype(int), 1000])
    assert (train.mean * counts).sum() == pytest.approx(values.sum())
    assert (valid.dots, valid.steps.tolist(), valid.mean.tolist()) == (True, [500.0], [2.0])
    assert found["loss"].logarithmic
    assert not found["auc"].logarithmic
    assert [line.label for line in found["norm of the gradient"].lines] == ["a*", "*"]


def test_the_page_stands_alone(tmp_path):
    log = Log(tmp_path)
    assert write_curves(tmp_path) is None
    for row in (step(1, 3.0), step(2, None, skipped="the loss is <nan>"), step(3, 1.0)):
        log.write(row)
    log.write({"kind": "validation", "step": 3, "epoch": 1, "pose_auc/<a>": None})
    log.close()
    options = {"lr": 0.1, "scene": None, "curves": True, "clip": ["*:1.0", "a:2"], "freeze": []}
    write_json(tmp_path / "run.json", {"command": "strata train <x>", "options": options})
    page = write_curves(tmp_path).read_text()
    assert page.count("<svg") == 6
    assert re.findall(r'(?:src|href)="(?!#)[^"]*"', page) == []
    assert "3 → 1" in page
    assert "the loss is &lt;nan&gt;" in page
    assert "strata train &lt;x&gt;" in page
    assert page.count('<table class="numbers">') == 1, "where numbers are not broken"
    assert "<th>pose_<wbr>auc/<wbr>&lt;a&gt;</th>" in page, "columns are no wider than their numbers need"
    cells = re.findall(r"<tr><td>(\w+)</td><td>([^<]*)</td></tr>", page.partition("<details>")[2])
    assert dict(cells) == {
        "lr": "0.1",
        "scene": "none",
        "curves": "true",
        "clip": "*:1.0,a:2",
        "freeze": "[]",
    }, "as they are typed"
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_steps_are_whole_and_a_line_at_zero_stands_on_the_axis():
    rows = [{"kind": "validation", "step": k, "epoch": k, "auc": 0.0} for k in range(4)]
    (panel,) = panels(rows)
    ticks = [float(text) for text in re.findall(r">\s*(−?[\d.]+)</text>", panel_svg(panel).replace("−", "-"))]
    assert ticks[:4] == [0, 1, 2, 3]
    assert min(ticks) == 0


def test_trackers_that_are_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for word in ("wandb", "tensorboard"):
        with pytest.raises(TrainError, match=f"{word} is not installed") as caught:
            open_trackers([word], tmp_path, 0, "id", {})
        assert f"pip install 'strata3d[{word}]'" in caught.value.fix


def test_trackers_get_points(tmp_path, monkeypatch):
    seen = []

    def writer(folder, purge_step):
        return SimpleNamespace(
            add_scalar=lambda *point: seen.append((folder, purge_step, *point)),
            close=lambda: seen.append("closed"),
        )

    def init(**words):
        return SimpleNamespace(
            log=lambda values, step: seen.append((words["mode"], words["id"], words["resume"], values, step)),
            finish=lambda: seen.append("finished"),
        )

    board = SimpleNamespace(SummaryWriter=writer)
    wandb = SimpleNamespace(init=init, Error=type("Error", (Exception,), {}))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    for tracker in open_trackers(["tensorboard", "wandb", "wandb:online"], tmp_path, 7, "id", {"lr": 1}):
        tracker.point(8, {"loss": 0.5})
        tracker.close()
    assert seen == [
        (str(tmp_path / "tensorboard"), 8, "loss", 0.5, 8),
        "closed",
        ("offline", "id", "allow", {"loss": 0.5}, 8),
        "finished",
        ("online", "id", "allow", {"loss": 0.5}, 8),
        "finished",
    ]

    def refuses(**words):
        raise wandb.Error("no key")

    wandb.init = refuses
    with pytest.raises(TrainError, match="cannot start") as caught:
        open_trackers(["wandb:online"], tmp_path, 0, "id", {})
    assert caught.value.why == "no key"
