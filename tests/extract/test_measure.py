"""`strata encoders info --measure`: sizes and deviations by layer, of models whose numbers are known."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from rich.console import Console
from strata.errors import EncoderError
from strata.extract.encoders.listing import info
from strata.extract.encoders.measure import measure, passes
from strata.extract.encoders.registry import create
from strata.extract.storage import LIMIT


def tiny() -> Any:
    return create("vit_tiny_demo", "random:0")


def test_sixteen_bits_deviate_by_their_own_precision():
    found = measure(tiny(), compiled=False)
    assert [row.layer for row in found] == ["patch_embed", "block0", "block1", "block2", "block3", "norm"]
    for row in found:
        assert set(row.deviation) == {"bfloat16", "float16"}
        bf16, fp16 = row.deviation["bfloat16"], row.deviation["float16"]
        assert bf16 is not None
        assert fp16 is not None
        # Eight and eleven bits of precision.
        assert 2**-11 < bf16 < 2**-6
        assert 2**-14 < fp16 < 2**-9
        assert row.storage == "f16"


def test_large_values_ask_for_bf16_and_overflow_float16():
    encoder = tiny()
    with torch.inference_mode():
        encoder.blocks[1].mlp.fc2.bias[5] = 1e5
    found = {row.layer: row for row in measure(encoder, compiled=False)}
    assert found["block0"].storage == "f16"
    assert found["block1"].storage == found["block3"].storage == "bf16"
    assert found["block1"].largest == pytest.approx(1e5, rel=1e-3)
    assert found["block1"].largest > LIMIT > found["norm"].largest
    assert found["block1"].deviation["float16"] is None
    assert found["block1"].deviation["bfloat16"] is not None


def test_a_measured_encoder_is_as_before():
    encoder = tiny()
    before = encoder.weights_digest()
    measure(encoder, compiled=False)
    assert encoder.weights_digest() == before
    assert encoder._dtype == torch.float32


def test_what_is_run():
    assert passes(tiny()) == ["float32", "bfloat16", "float16", "compile"]
    assert passes(create("oracle_rgb")) == ["float32"]
    (row,) = measure(create("oracle_rgb"))
    assert row.deviation == {}
    assert row.largest <= 1
    with pytest.raises(EncoderError, match="nothing to measure"):
        measure(create("oracle_world"))


def test_a_compiler_that_fails_is_noted_and_left_out():
    class Broken(torch.nn.Module):
        def compile(self, *args: Any, **kwargs: Any) -> None:
            self.forward = self.fail

        def fail(self, *args: Any) -> None:
            raise RuntimeError("no compiler\nand more")

    encoder, notes = tiny(), []
    encoder.blocks[0].__class__ = type("BrokenBlock", (Broken, type(encoder.blocks[0])), {})
    found = measure(encoder, note=notes.append)
    assert all(set(row.deviation) == {"bfloat16", "float16"} for row in found)
    assert notes == ["torch.compile does not work here and is left out: no compiler"]


def test_the_command_prints_layers(console: Console, capsys: pytest.CaptureFixture[str]):
    assert info("oracle_rgb", console, measured=True, device="cpu") == 0
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "max |x|" in printed
    assert printed.splitlines()[-2].split()[0] == "norm"
    assert info("oracle_rgb", console, as_json=True, measured=True, device="cpu") == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["layer"] for row in told["layers"]] == ["norm"]


@pytest.mark.parametrize("name", ["vit_tiny_demo", "vggt_tiny_demo"])
def test_without_weights_the_error_names_this_command(name: str, console: Console):
    with pytest.raises(EncoderError, match="no weights on the hub") as caught:
        info(name, console, measured=True, device="cpu")
    assert f"give `strata encoders info {name} --measure --weights random:0`" in caught.value.fix
    assert "--weights PATH of" in caught.value.fix
    assert "weights=" not in caught.value.fix


@pytest.mark.slow
def test_compiled_blocks_deviate_by_rounding():
    found = measure(tiny())
    deviations = [row.deviation["compile"] for row in found]
    assert all(value is not None and value < 1e-5 for value in deviations)
    assert deviations[0] == 0, "the patch embedding is not compiled"
