"""Fuzzing, and a hub that is out of reach."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from ..fuzzing import fuzz, watch

__all__ = ["fuzz", "watch"]


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, and an empty cache of the hub at the returned path."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
