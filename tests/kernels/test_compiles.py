"""Every kernel compiles for the GPUs it is meant for, and the hot ones stay in registers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from strata.kernels.compiled import Compilation, Resources, compile_for

pytest.importorskip("triton")
import triton
import triton.language as tl


@triton.jit
def product_with_sum(x, out, SIZE: tl.constexpr):
    places = tl.arange(0, SIZE)
    values = tl.load(x + places)
    tl.store(out + places, values * tl.sum(values, axis=0))


def product(size: int) -> Compilation:
    return Compilation(
        name=f"product {size}",
        kernel=product_with_sum,
        signature={"x": "*fp32", "out": "*fp32"},
        constants={"SIZE": size},
        num_warps=1,
    )


def kernel_files(root: Path) -> Iterator[ModuleType]:
    for file in sorted((root / "kernels").glob("*/kernel*.py")):
        module = importlib.import_module(f"strata.kernels.{file.parent.name}.{file.stem}")
        if hasattr(module, "compilations"):
            yield module


def row(one: Compilation, capability: int, took: Resources) -> str:
    return (
        f"sm_{capability} {one.name:<44} {took.registers:>4} registers {took.stack_bytes:>5} B stack "
        f"{took.shared_bytes:>7,} B shared{'  hot' if one.hot else ''}"
    )


@pytest.mark.parametrize("capability", [80, 90])
def test_every_kernel_compiles(root: Path, capability: int, capsys: pytest.CaptureFixture[str]):
    listed = [one for module in kernel_files(root) for one in module.compilations()]
    took = [compile_for(one, capability) for one in listed]
    with capsys.disabled():
        print("", *(row(one, capability, it) for one, it in zip(listed, took, strict=True)), sep="\n")
    assert listed
    assert [one.name for one, it in zip(listed, took, strict=True) if one.hot and it.stack_bytes] == []
    assert all(0 < it.registers <= 255 for it in took)


@pytest.mark.parametrize("capability", [80, 90])
def test_what_does_not_fit_into_registers_is_seen(capability: int):
    # 32 threads: 8 values each fit, 512 do not.
    small, large = compile_for(product(256), capability), compile_for(product(16_384), capability)
    assert small.stack_bytes == 0
    assert large.stack_bytes > 0
    assert 8 < small.registers < large.registers
    assert f"sm_{capability}" in small.ptx
