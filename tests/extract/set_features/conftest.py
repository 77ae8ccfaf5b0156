"""Two scenes to draw sets from."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def rooms(pipeline) -> Any:
    pipeline.add("a", views=5)
    pipeline.add("b", views=4, seed=1)
    return pipeline
