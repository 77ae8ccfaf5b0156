"""Triton kernels compiled ahead of time for a GPU that need not be there, and what they take of it.

A kernel file lists its `compilations()`: the types and constants that it is launched with. The test of
kernels compiles them all; a kernel that calls for more registers than a thread has keeps them in local
memory, which shows as a stack frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

FRAME_SIZE, MIN_STACK_SIZE, REGISTERS = 0x11, 0x12, 0x2F
"""Attributes in the section `.nv.info` of a cubin; the value belongs to a function."""

WITH_VALUE, HALFWORD_SIZE = 4, 4
"""The format of an attribute that a sized value follows, and the size of one without."""


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """One way in which a kernel is launched.

    Attributes:
        name: what a table calls it, as in `voxel_hash.insert f32`.
        kernel: the function under `@triton.jit`.
        signature: the type of each argument that is no constant, as in {"points": "*fp32", "n": "i64"}.
        constants: the value of each `tl.constexpr` argument.
        num_warps, num_stages: as at launch.
        aligned: pointers are those of whole tensors, multiples of 16 bytes.
        fp_fusion: multiplications and additions may be fused, `enable_fp_fusion` at launch.
        hot: its time counts, so that it must need no stack.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 3
    aligned: bool = True
    fp_fusion: bool = True
    hot: bool = False


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a compiled kernel takes.

    Attributes:
        registers: of a thread, 255 at most.
        stack_bytes: of a thread; what did not fit into registers lies there.
        shared_bytes: of a block.
        ptx: the code before the assembler, to look for instructions in.
    """

    registers: int
    stack_bytes: int
    shared_bytes: int
    ptx: str = field(repr=False)


def compile_for(compilation: Compilation, capability: int) -> Resources:
    """Compiles for compute capability 80 (A100), 90 (H100, H200), ...; needs triton, no GPU and no driver."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = compilation.kernel.arg_names
    signature = {name: compilation.signature.get(name, "constexpr") for name in names}
    pointers = [(k,) for k, name in enumerate(names) if compilation.aligned and signature[name][0] == "*"]
    source = ASTSource(
        compilation.kernel,
        signature,
        dict(compilation.constants),
        {key: [["tt.divisibility", 16]] for key in pointers},
    )
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={
            "num_warps": compilation.num_warps,
            "num_stages": compilation.num_stages,
            "enable_fp_fusion": compilation.fp_fusion,
        },
    )
    sizes = dict.fromkeys((FRAME_SIZE, MIN_STACK_SIZE, REGISTERS), 0)
    for attribute, value in _attributes(_section(compiled.asm["cubin"], ".nv.info")):
        if attribute in sizes:
            sizes[attribute] = max(sizes[attribute], value)
    return Resources(
        registers=sizes[REGISTERS],
        stack_bytes=max(sizes[FRAME_SIZE], sizes[MIN_STACK_SIZE]),
        shared_bytes=compiled.metadata.shared,
        ptx=compiled.asm["ptx"],
    )


def _section(elf: bytes, name: str) -> bytes:
    """The bytes of a section of a 64-bit little-endian ELF file."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    entries = [struct.unpack_from("<IIQQQQ", elf, table + k * entry_size) for k in range(count)]
    names_at = entries[names_index][4]
    for name_at, _, _, _, start, size in entries:
        begin = names_at + name_at
        if elf[begin : elf.index(b"\0", begin)].decode() == name:
            return elf[start : start + size]
    raise AssertionError(f"the cubin has no section {name}")


def _attributes(info: bytes) -> Iterator[tuple[int, int]]:
    """(attribute, value) of each function in `.nv.info`."""
    at = 0
    while at < len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += HALFWORD_SIZE
        if form == WITH_VALUE:
            if size == 8:
                yield attribute, struct.unpack_from("<II", info, at)[1]
            at += size
