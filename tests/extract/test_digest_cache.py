"""Digests of weights: remembered with the file, and never for another one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import strata
import torch
from safetensors.torch import save_file
from strata.extract.encoders import blocks, digest_cache
from strata.extract.encoders.presets import load_preset
from strata.extract.encoders.registry import create
from strata.extract.encoders.vggt import encoder as vggt_encoder
from strata.extract.encoders.weights import state_digest


@pytest.fixture
def hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests that were computed; the cache is empty, and takes small files too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digest_cache, "WORTH_BYTES", 0)
    computed: list[str] = []

    def counted(state):
        computed.append(state_digest(state))
        return computed[-1]

    monkeypatch.setattr(blocks, "state_digest", counted)
    return computed


def save(path: Path, seed: int) -> Path:
    encoder = create("vit_tiny_demo", f"random:{seed}")
    save_file(encoder.state(), path)  # type: ignore[attr-defined]
    return path


def digest(weights: Path | str) -> str:
    return create("vit_tiny_demo", str(weights)).weights_digest()


def test_a_file_is_hashed_once(tmp_path: Path, hashed: list[str]):
    file = save(tmp_path / "w.safetensors", 0)
    assert digest(file) == digest(file) == digest("random:0")
    assert len(hashed) == 2, "once for the file, once for the seed"


def test_a_file_that_changed_is_hashed_again(tmp_path: Path, hashed: list[str]):
    file = save(tmp_path / "w.safetensors", 0)
    first, stat = digest(file), file.stat()
    save(file, 1)
    assert file.stat().st_size == stat.st_size
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert digest(file) != first
    assert len(hashed) == 2


def test_other_models_of_one_file_have_their_own(tmp_path: Path, hashed: list[str]):
    file = save(tmp_path / "w.safetensors", 0)
    state = {"w": torch.zeros(2), "settings": torch.tensor([1, 2])}
    other = {**state, "settings": torch.tensor([1, 3])}
    first = digest_cache.cached_digest(file, state, lambda: "a" * 64)
    assert digest_cache.cached_digest(file, state, lambda: "b" * 64) == first
    assert digest_cache.cached_digest(file, other, lambda: "b" * 64) == "b" * 64
    assert digest_cache.cached_digest(file, {"w": torch.zeros(3)}, lambda: "c" * 64) == "c" * 64
    assert not hashed


@pytest.mark.parametrize("note", ["", "{", '"short"', "[]"])
def test_damaged_notes_are_written_anew(tmp_path: Path, hashed: list[str], note: str):
    file = save(tmp_path / "w.safetensors", 0)
    right = digest(file)
    (kept,) = (tmp_path / "cache" / "strata" / "digests").glob("*.json")
    kept.write_text(note)
    assert digest(file) == right
    assert kept.read_text() == f'"{right}"'
    assert len(hashed) == 2


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    file = save(tmp_path / "w.safetensors", 0)
    assert digest(file) == digest(file)
    assert len(hashed) == 2


def test_small_files_leave_no_notes(tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(digest_cache, "WORTH_BYTES", 1 << 30)
    digest(save(tmp_path / "w.safetensors", 0))
    assert not (tmp_path / "cache").exists()


def test_vggt_is_hashed_once_too(tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vggt_encoder, "state_digest", blocks.state_digest)
    config = load_preset("vggt_tiny_demo").model
    folder = strata.VGGT.from_config({**config, "seed": 3}).save(tmp_path / "model")  # type: ignore[dict-item]
    first, again = (create("vggt_tiny_demo", str(folder)).weights_digest() for _ in range(2))
    assert first == again
    assert len(hashed) == 1
