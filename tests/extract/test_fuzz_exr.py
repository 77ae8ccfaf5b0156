"""EXR bytes changed at random: an error of ours, or a picture of the size that the header says."""

import numpy as np
import pytest
from hypothesis import strategies as st
from strata.extract.scenes.exr import read_exr, write_exr
from strata.extract.scenes.exr_header import parse_header

KINDS = ["half", "float", "three", "flat", "noise"]


def picture(kind):
    rng = np.random.default_rng(0)
    if kind == "flat":
        return write_exr(np.full((200, 300), 2.5, np.float32))
    shape = (37, 23, 3) if kind == "three" else (37, 23)
    values = rng.normal(size=shape) if kind == "noise" else np.round(rng.uniform(0, 9, shape))
    return write_exr(values.astype(np.float32), half=kind != "float")


@pytest.mark.parametrize("kind", KINDS)
def test_exr_bytes(fuzz, tmp_path, kind):
    whole = picture(kind)
    original = read_exr(whole)

    @fuzz
    def _(data):
        # Half of the changes go into the header, which is short beside the blocks.
        split = parse_header(whole, "").end if data.draw(st.booleans(), label="header") else len(whole)
        changed = fuzz.bytes(data, whole[:split]) + whole[split:]
        decoded = fuzz.read(lambda: read_exr(changed), tmp_path, max(len(changed), original.nbytes))
        if decoded is not None:
            header = parse_header(changed, "")
            assert decoded.dtype == np.float32
            assert decoded.shape[:2] == (header.height, header.width)
