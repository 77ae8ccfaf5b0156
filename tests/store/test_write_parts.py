"""A file from many pieces of memory, and memory that begins at a page."""

from __future__ import annotations

import os

import numpy as np
import pytest
from strata.store import disk_hints
from strata.store import write_parts as module
from strata.store.page_memory import page_empty
from strata.store.write_parts import write_parts


@pytest.mark.parametrize("together", [1, 50, module.TOGETHER])
def test_pieces_stand_one_after_the_other(tmp_path, monkeypatch, together):
    monkeypatch.setattr(module, "TOGETHER", together)
    draw = np.random.default_rng(0)
    pieces = [draw.bytes(int(size)) for size in draw.integers(0, 40, 1300)]  # more than one call takes
    given = (memoryview(piece) if i % 2 else piece for i, piece in enumerate(pieces))
    assert write_parts(tmp_path / "file", given) == sum(map(len, pieces))
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)


@pytest.mark.parametrize("hints", [True, False])
def test_room_that_was_made_and_not_used_is_given_back(tmp_path, monkeypatch, hints):
    monkeypatch.setattr(module, "TOGETHER", 1000)
    monkeypatch.setattr(module, "AHEAD", 5000)
    if not hints:  # another system, or a file system that takes none
        monkeypatch.setattr(disk_hints, "_fallocate", None)
        monkeypatch.setattr(disk_hints, "_sync_file_range", None)
    pieces = [bytes([i]) * size for i, size in enumerate((999, 1, 4000, 3999, 1500, 17000, 3))]
    assert write_parts(tmp_path / "file", pieces) == sum(map(len, pieces))
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)
    assert (tmp_path / "file").stat().st_blocks * 512 <= 8 * 4096


def test_hints_that_a_file_takes_not_are_no_errors(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    handle = os.open(tmp_path / "file", os.O_RDONLY)
    disk_hints.reserve(handle, 0, 1000)
    disk_hints.begin_writing(-1, 0, 1000)
    os.close(handle)
    assert (tmp_path / "file").read_bytes() == b"x"


def test_nothing_and_what_is_there(tmp_path):
    assert write_parts(tmp_path / "file", []) == 0
    with pytest.raises(FileExistsError):
        write_parts(tmp_path / "file", [b"x"])


@pytest.mark.parametrize("shape", [(3, 5, 7), (1,), (0, 4)])
def test_page_memory(shape):
    memory = page_empty(shape, np.float16)
    assert (memory.shape, memory.dtype, memory.flags.writeable) == (shape, np.float16, True)
    assert memory.flags.c_contiguous
    if memory.size:
        assert memory.ctypes.data % 4096 == 0
    memory[...] = 1
