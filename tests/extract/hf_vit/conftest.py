"""Every architecture, saved as the library saves it, and loaded as an encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from strata.extract.encoders.hf_vit import HfViT

from .small_models import MODELS, library, loaded


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            library(name).save_pretrained(root / name)
        return root / name

    return folder


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def encoder(name: str, saved: Callable[[str], Path]) -> HfViT:
    return loaded(saved(name))
