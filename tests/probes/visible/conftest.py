"""The views of the office."""

from __future__ import annotations

import pytest
from strata.probes.set_views import read_views
from strata.probes.visibility import SurfaceView
from strata.probes.visible_protocol import VisibleProtocol
from strata.store.feature_store import FeatureStore
from strata.store.selection import Selection

from .office import stored


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Selection:
    return FeatureStore.open(stored(tmp_path_factory.mktemp("office"))).select("oracle_world")


@pytest.fixture(scope="module")
def surfaces(office: Selection) -> list[SurfaceView]:
    names = [name for block in office.blocks() for name in block.names]
    views = read_views(office, names, VisibleProtocol().read)
    return [views[name] for name in names]
