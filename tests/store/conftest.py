"""Fuzzing, and a small store to read."""

from __future__ import annotations

import pytest

from ..fuzzing import fuzz, watch

__all__ = ["fuzz", "watch"]


@pytest.fixture
def filled(pipeline):
    """A pipeline with two scenes, extracted."""
    for name in ("a", "b"):
        pipeline.add(name)
    pipeline.extract()
    return pipeline
