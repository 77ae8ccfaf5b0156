"""What `strata encoders ls|info` tell, and that it is true of what is built."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint

import pytest
from rich.console import Console
from strata.errors import EncoderError
from strata.extract.encoders import listing, registry
from strata.extract.encoders.base import EncoderInfo
from strata.extract.encoders.listing import default_layers, facts, info, ls, markdown
from strata.extract.encoders.registry import create, describe, encoder_names


def printed(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_every_encoder_is_listed(console: Console, capsys: pytest.CaptureFixture[str]):
    assert ls(console) == 0
    rows = [line.split() for line in printed(console).splitlines()[1:-1]]
    assert [row[0] for row in rows] == encoder_names()
    assert ls(console, as_json=True) == 0
    assert [told["name"] for told in json.loads(capsys.readouterr().out)] == encoder_names()
    assert ls(console, as_markdown=True) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(encoder_names()) + 2


def test_bytes_are_those_of_four_layers_on_a_landscape_grid():
    told = facts(describe("dinov2_base"))
    assert told["default_layers"] == ["block2", "block5", "block8", "norm"]
    assert told["grid"] == [28, 37]
    assert told["bytes_per_view"] == 4 * 28 * 37 * 768 * 2
    assert facts(describe("oracle_rgb"))["bytes_per_view"] == 28 * 37 * 3 * 2


@pytest.mark.parametrize("name", ["vit_tiny_demo", "oracle_world", "oracle_camera", "oracle_position"])
def test_widths_and_layers_are_those_of_the_encoder(name: str):
    encoder = create(name, "random:0")
    assert {encoder.width(layer) for layer in default_layers(encoder.info)} == {encoder.info.width}


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("dinov2_base", "timm"),
        ("vit_tiny_demo", "timm"),
        ("mae_base", "transformers"),
        ("oracle_rgb", "oracle"),
        ("timm:test_vit", "timm"),
    ],
)
def test_families(name: str, family: str):
    assert facts(describe(name))["family"] == family


def test_info_says_what_is_declared(console: Console, capsys: pytest.CaptureFixture[str]):
    assert info("oracle_world", console) == 0
    rows = dict(line.split(maxsplit=1) for line in printed(console).splitlines())
    assert rows["needs"].strip() == "scene_scale_m, token_point_world"
    assert rows["source"].strip() == "-"
    assert info("oracle_world", console, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == facts(describe("oracle_world"))


def test_unknown_names(console: Console):
    with pytest.raises(EncoderError, match="no encoder is called dinov2_bse"):
        info("dinov2_bse", console)


def test_what_is_not_declared_is_left_open():
    told = facts(EncoderInfo(name="mine", patch_size=16, depth=2))
    assert told["bytes_per_view"] is None
    row = markdown([EncoderInfo(name="mine", patch_size=16, depth=2)]).splitlines()[2]
    assert [cell.strip() for cell in row.split("|")[4:7]] == ["2", "-", "-"]


def test_a_broken_package_hides_no_other_encoder(
    console: Console, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    point = EntryPoint(name="broken", value="no_such_module:Broken", group=registry.GROUP)
    monkeypatch.setattr(registry, "_entry_points", lambda: {"broken": point})
    assert ls(console) == 1
    assert "oracle_world" in printed(console)
    assert "the encoder broken does not import" in capsys.readouterr().err
    assert listing.family("broken") == "entry point"
    assert "no_such_module" not in sys.modules
