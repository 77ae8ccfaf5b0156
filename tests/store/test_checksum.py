"""crc32c against the standard's own values and another library's."""

from __future__ import annotations

import google_crc32c
import numpy as np
import pytest
from strata.store.checksum import crc32c, crc_bytes, crc_fits


def test_the_standards_values():
    # RFC 3720, B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc_bytes(bytes(range(32))) == (0x46DD794E).to_bytes(4, "little")


@pytest.mark.parametrize("size", [0, 1, 3, 63, 64, 255, 256, 4097, 1_000_003])
def test_another_librarys_values_wherever_the_memory_begins(size):
    memory = np.random.default_rng(size).integers(0, 256, size + 64, np.uint8)
    for start in (0, 1, 8, 63):
        part = memory[start : start + size]
        expected = google_crc32c.value(part.tobytes())
        assert crc32c(part) == crc32c(part.data) == crc32c(part.tobytes()) == expected
        assert crc_fits(part, expected.to_bytes(4, "little"))
        assert not crc_fits(part, (expected ^ 1).to_bytes(4, "little"))
