"""Digests of weights, and reading them from files of several kinds."""

from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors.torch import save_file
from strata.errors import EncoderError
from strata.extract.encoders.weights import check_state, load_state, random_seed, state_digest

STATE = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}


def test_digest_is_the_documented_one():
    text = b'["a","bfloat16",[2]]' + bytes.fromhex("c03f00c0") + b'["b","float32",[2,3]]'
    text += STATE["b"].numpy().tobytes()
    assert state_digest(STATE) == hashlib.sha256(text).hexdigest()


def test_digest_ignores_order_and_strides():
    turned = {"a": STATE["a"], "b": STATE["b"].T.contiguous().T}
    assert not turned["b"].is_contiguous()
    assert state_digest(turned) == state_digest(STATE)


@pytest.mark.parametrize(
    "other",
    [
        {**STATE, "b": STATE["b"] + 1e-6},
        {**STATE, "b": STATE["b"].reshape(3, 2)},
        {**STATE, "b": STATE["b"].view(torch.int32)},
        {"a": STATE["a"], "c": STATE["b"]},
        {"a": STATE["a"]},
        {**STATE, "c": torch.empty(0)},
    ],
    ids=["value", "shape", "dtype", "name", "fewer", "empty"],
)
def test_digest_sees(other):
    assert state_digest(other) != state_digest(STATE)


def test_digest_of_scalars_and_of_nothing():
    assert state_digest({"n": torch.tensor(3)}) != state_digest({"n": torch.tensor(4)})
    assert state_digest({}) == hashlib.sha256().hexdigest()


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {"state_dict": s, "epoch": 3}]
)
def test_reads_torch_checkpoints(tmp_path, wrap):
    torch.save(wrap(STATE), tmp_path / "weights.pth")
    assert state_digest(load_state(tmp_path / "weights.pth")) == state_digest(STATE)


def test_reads_safetensors(tmp_path):
    save_file(STATE, tmp_path / "weights.safetensors")
    assert state_digest(load_state(str(tmp_path / "weights.safetensors"))) == state_digest(STATE)


class Trap:
    """An object whose unpickling calls a function."""

    def __reduce__(self):
        return eval, ("1 + 1",)


def test_never_unpickles_more_than_tensors(tmp_path):
    path = tmp_path / "trap.pth"
    torch.save({"model": Trap()}, path)
    with pytest.raises(EncoderError, match="more than tensors") as caught:
        load_state(path)
    assert "safetensors" in caught.value.fix


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_damaged_files(tmp_path, name):
    (tmp_path / name).write_bytes(b"rubbish")
    with pytest.raises(EncoderError, match="checkpoint"):
        load_state(tmp_path / name)


@pytest.mark.parametrize("content", [{}, [1, 2], {"model": {"epoch": 3}}, {"epoch": 3}])
def test_files_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(EncoderError, match="no state dict"):
        load_state(tmp_path / "weights.pth")


def test_missing_file_says_what_weights_may_be(tmp_path):
    with pytest.raises(EncoderError) as caught:
        load_state(tmp_path / "nowhere.pth")
    assert "random:<seed>" in caught.value.why


def test_lists_what_does_not_fit():
    expected = {**{f"w{k}": torch.zeros(2) for k in range(7)}, "b": torch.zeros(3, 2)}
    check_state(expected, expected, "here")
    with pytest.raises(EncoderError) as caught:
        check_state({**STATE, "w0": torch.zeros(2)}, expected, "here")
    assert caught.value.why.splitlines() == [
        "6 missing: w1, w2, w3, w4, w5 and 1 more",
        "1 unexpected: a",
        "1 of another shape: b [2, 3] instead of [3, 2]",
    ]


def test_seeds():
    assert random_seed("random:12") == 12
    assert random_seed("hub") is None
    assert random_seed("/some/random.pth") is None
    for wrong in ("random", "random:", "random:-1", "random:x"):
        with pytest.raises(EncoderError, match="no seed"):
            random_seed(wrong)
