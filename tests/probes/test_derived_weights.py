"""What a run says of the weights of derived features."""

from __future__ import annotations

import pytest
from strata.probes.run_records import _weights
from strata.store.derived import concat, l2, pca
from strata.store.derived_write import materialise
from strata.store.feature_store import FeatureStore


@pytest.mark.parametrize(("word", "told"), [("random:0", "random:0"), ("hub", "derived")])
def test_derived_features_have_the_weights_of_their_parents(pipeline, console, monkeypatch, word, told):
    pipeline.add("a")
    pipeline.extract(layers=["norm"])
    monkeypatch.setattr(
        "strata.store.block.Block.provenance",
        lambda block, _: {"weights": word} if block.stored_key.key.derived is None else {},
    )
    plain = FeatureStore.open(pipeline.root).select("colour")
    for made in (l2(plain), pca(l2(plain), 2), concat(plain, plain)):
        materialise(made, console=console)
        found = _weights(FeatureStore.open(pipeline.root).select(made.stored_key.name))
        assert found == told
