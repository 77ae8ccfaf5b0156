"""A tiny VGGT, and what the reference computes with another."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from strata.extract.encoders.vggt.model import VGGT

CONFIG: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 4,
    "num_heads": 2,
    "num_register_tokens": 2,
    "encoder": {"type": "dinov2", "depth": 1, "num_heads": 2, "num_register_tokens": 1},
    "camera_head": {"trunk_depth": 1, "num_heads": 2, "iters": 2},
    "dpt": {"features": 8, "out_channels": [8, 8, 8, 8]},
    "track_head": {
        "features": 8,
        "corr_levels": 2,
        "corr_radius": 1,
        "hidden_size": 16,
        "depth": 1,
        "iters": 2,
    },
    "seed": 0,
}


@pytest.fixture
def config() -> dict[str, Any]:
    """Of a model that runs in a moment; a copy to change."""
    return copy.deepcopy(CONFIG)


@pytest.fixture
def tiny(config: dict[str, Any]) -> VGGT:
    return VGGT.from_config(config).eval()


@pytest.fixture
def images() -> torch.Tensor:
    """[1, 3, 3, 16, 24]: two rows and three columns of patches."""
    return torch.rand(1, 3, 3, 16, 24, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    folder = shared / "golden" / "vggt"
    if not folder.is_dir():
        pytest.skip("shared/ holds no golden/vggt/")
    return folder


@pytest.fixture(scope="session")
def manifest(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "tiny_dino14_manifest.json").read_text())


@pytest.fixture
def reference_model(golden: Path, manifest: dict[str, Any]) -> VGGT:
    """The tiny model of the reference, with its weights."""
    model = VGGT.from_config(manifest["config"])
    model.load_state_dict(load_file(golden / "tiny_dino14_state_dict.safetensors"))
    return model.eval()
