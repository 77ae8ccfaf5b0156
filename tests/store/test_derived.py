"""Derived selections against numpy, lazy and in the store."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from rich.console import Console
from strata.errors import SelectionError, StoreError
from strata.store import derived_write
from strata.store.derived import concat, l2, pca
from strata.store.derived_write import materialise
from strata.store.feature_store import FeatureStore
from strata.store.pca_fit import Basis


@pytest.fixture
def filled(pipeline):
    for name in ("a", "b", "c"):
        pipeline.add(name)
    pipeline.extract(storage="f32")
    return pipeline


def select(pipeline, encoder="colour", **options):
    return FeatureStore.open(pipeline.root).select(encoder, **options)


def basis_of(derived) -> Basis:
    return derived.parts[0].places["norm"].function.basis


def values(selection, layer):
    return np.concatenate([part.tokens[layer] for part in selection.load()])


def test_unit_length(filled):
    selection = select(filled)
    made = values(l2(selection), "norm")
    tokens = values(selection, "norm").astype(np.float64)
    expected = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    np.testing.assert_allclose(made, expected, atol=1e-6)
    assert made.dtype == np.float32
    assert l2(selection).key.id != selection.key.id


def test_zeros_have_no_direction(filled, colour):
    encoder = colour()
    encoder.poison = lambda tokens: tokens * (tokens > 10)
    filled.extract(encoder, layers=["block1"], storage="f32")
    assert (values(l2(select(filled, layers=["block1"])), "block1") == 0).all()


def test_principal_components(filled):
    selection = select(filled, layers=["norm"])
    tokens = values(selection, "norm").astype(np.float64).reshape(-1, 3)
    centred = tokens - tokens.mean(0)
    _, spread, rows = np.linalg.svd(centred, full_matrices=False)
    rows *= np.sign(rows[np.arange(3), np.abs(rows).argmax(1)])[:, None]
    made = pca(selection, 2)
    np.testing.assert_allclose(values(made, "norm").reshape(-1, 2), centred @ rows[:2].T, atol=1e-5)
    basis = basis_of(made)
    np.testing.assert_allclose(basis.variance, (spread**2 / len(tokens))[:2], rtol=1e-4)
    assert basis.total_variance == pytest.approx((centred**2).mean(0).sum())
    assert basis.tokens == len(tokens) == 9 * 24
    again = Basis.from_dict(basis.to_dict())
    np.testing.assert_array_equal(again.components, basis.components)
    np.testing.assert_array_equal(again.mean, basis.mean)
    assert pca(selection, 2).key.id == made.key.id != pca(selection, 1).key.id


def test_a_basis_of_other_views(filled):
    selection = select(filled, layers=["norm"])
    one = pca(selection, 2, fit=selection.where(scene="a"))
    tokens = values(selection.where(scene="a"), "norm")
    np.testing.assert_allclose(basis_of(one).mean, tokens.reshape(-1, 3).mean(0), atol=1e-6)
    assert len(one) == len(selection)
    assert one.key.id != pca(selection, 2).key.id
    few = basis_of(pca(selection, 2, fit_views=3))
    np.testing.assert_allclose(few.mean, values(selection, "norm")[::3].reshape(-1, 3).mean(0), atol=1e-6)


def test_channels_side_by_side(filled, colour):
    filled.extract(colour(frozenset({"token_point_world"})), storage="f32", layers=["block0", "block1"])
    a, b = select(filled, scene="[ab]"), select(filled, "points", scene="[bc]")
    made = concat(a, b)
    assert (made.layers, made.scenes) == (("block0+block0", "norm+block1"), ("toy/b",))
    expected = np.concatenate([values(a.scene("toy/b"), "norm"), values(b.scene("toy/b"), "block1")], -1)
    np.testing.assert_array_equal(values(made, "norm+block1"), expected)
    assert made.parts[0].width("norm+block1") == 6
    found = made.gather([2, 0], [1, 3], [5, 0])["norm+block1"]
    np.testing.assert_array_equal(found, expected[[2, 0], [1, 3], [5, 0]])
    np.testing.assert_allclose(
        values(l2(made), "norm+block1"),
        expected / np.linalg.norm(expected, axis=-1, keepdims=True),
        rtol=1e-6,
    )
    with pytest.raises(SelectionError, match="side by side"):
        concat(a.where(scene="a"), b)
    with pytest.raises(SelectionError, match="side by side"):
        concat(a.where(layers=["norm"]), b)


def test_they_are_selections(filled):
    selection = select(filled)
    made = l2(selection)
    assert made.nbytes == sum(part.tokens[layer].nbytes for part in made.load() for layer in made.layers)
    (batch,) = made.loader(batch=16, fields=("tokens", "depth_m"), shuffle=False)
    np.testing.assert_array_equal(batch.tokens["norm"], values(made, "norm"))
    assert batch.depth_m.shape == (9, 16, 24)
    part = made.where(scene="[bc]", layers=["norm"]) - made.where(views=["toy/b/001"], layers=["norm"])
    np.testing.assert_array_equal(values(part, "norm"), values(made, "norm")[[3, 5, 6, 7, 8]])
    again = part | made.where(scene="b", layers=["norm"])
    np.testing.assert_array_equal(values(again, "norm"), values(made, "norm")[3:])
    assert "colour-l2" in repr(made)
    with pytest.raises(SelectionError, match="tokens alone"):
        made.load(["prefix"])


@pytest.mark.parametrize("storage", ["f16", "f32"])
def test_in_the_store_they_are_features_like_others(filled, console, tree, storage):
    made = pca(select(filled), 2)
    stored = materialise(made, storage=storage, console=console)
    assert stored.stored_key.name == made.stored_key.name
    for kept, computed in zip(stored.table(), made.table(), strict=True):
        assert kept == {**computed, "storage": dict.fromkeys(computed["storage"], storage)}
    fresh = select(filled, "colour-pca2")
    for layer in ("block0", "norm"):
        np.testing.assert_allclose(values(fresh, layer), values(made, layer), atol=2e-3)
    assert fresh.parts[0].layers["norm"] == storage
    assert fresh.load(["tokens", "image"])[0].image is not None
    group = fresh.parts[0]._tokens("norm").group
    basis = Basis.from_dict(group.attributes["pca"])
    np.testing.assert_array_equal(basis.components, basis_of(made).components)
    assert basis.fitted_on == select(filled).fingerprint
    before = tree(filled.root)
    materialise(made, storage=storage, console=console)
    assert tree(filled.root) == before


def test_more_views_join_those_that_are_stored(filled, console, tree):
    every = l2(select(filled))
    first = materialise(every.where(views=["toy/a/000", "toy/b/001"]), console=console)
    assert [row["frame"] for row in first.table()] == ["000", "001"]
    assert len(select(filled, "colour-l2").left_out) == 7
    second = materialise(every.where(scene="c", layers=["norm"]), console=console)
    np.testing.assert_allclose(values(second, "norm"), values(every, "norm")[6:], atol=1e-3)
    assert len(select(filled, "colour-l2", layers=["norm"])) == 5
    np.testing.assert_allclose(
        values(select(filled, "colour-l2", layers=["norm"]), "norm")[:2], values(first, "norm"), atol=0
    )
    materialise(every, console=console)
    whole = select(filled, "colour-l2")
    assert len(whole) == 9
    np.testing.assert_allclose(values(whole, "norm"), values(every, "norm"), atol=1e-3)


def test_derived_of_oracles_belong_to_their_geometry(filled, colour, console):
    from dataclasses import replace

    filled.extract(colour(frozenset({"token_point_world"})), storage="f32")
    materialise(l2(pca(select(filled, "points"), 2)), console=console)
    assert len(select(filled, "points-pca2-l2")) == 9
    filled.change("a", lambda views: [replace(views[0], depth=None), *views[1:]])
    filled.extract(colour(frozenset({"token_point_world"})), storage="f32")
    with pytest.raises(SelectionError, match="changed"):
        select(filled, "points-pca2-l2")


def test_what_cannot_be_derived(filled, colour, console):
    selection = select(filled)
    with pytest.raises(SelectionError, match="4 principal components"):
        pca(selection, 4)
    with pytest.raises(SelectionError, match="not a derived one"):
        materialise(selection, console=console)
    with pytest.raises(SelectionError, match="'u8'"):
        materialise(l2(selection), storage="u8", console=console)
    encoder = colour()
    encoder.poison = lambda tokens: tokens * 1e5
    filled.extract(encoder, layers=["block1"], storage="f32")
    with pytest.raises(StoreError, match="does not fit into f16"):
        materialise(concat(*[select(filled, layers=["block1"])] * 2), console=console)


def test_a_call_that_was_broken_off_is_continued(filled, console, tree, monkeypatch, tmp_path):
    """Also when it was of fewer views: no view is taken for missing because a shard is there."""
    from strata.store import derived_write

    every = l2(select(filled))
    few = every.where(views=["toy/a/000"])
    monkeypatch.setattr(derived_write.GroupWriter, "commit", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        materialise(few, console=console)
    monkeypatch.undo()
    assert len(materialise(every, console=console)) == 9
    interrupted = {name: data for name, data in tree(filled.root).items() if "colour-l2" in name}
    for path in (filled.root / "features").glob("colour-l2*"):
        path.rename(tmp_path / path.name)
    materialise(every, console=console)
    assert {name: data for name, data in tree(filled.root).items() if "colour-l2" in name} == interrupted


def test_views_that_two_derive_at_once_are_all_kept(filled, monkeypatch):
    first, second = (l2(select(filled, scene=name, layers=["norm"])) for name in "ab")
    made_map, others = derived_write._made_map, []

    def meanwhile(*args):
        if not others:
            others.append(threading.Thread(target=materialise, args=(second,), kwargs=quiet))
            others[0].start()
            others[0].join(1)  # it ends in this time where nobody keeps it waiting
        return made_map(*args)

    quiet = {"console": Console(quiet=True)}
    monkeypatch.setattr(derived_write, "_made_map", meanwhile)
    materialise(first, **quiet)
    others[0].join()
    assert {block.scene for block in select(filled, "colour-l2").parts if len(block)} == {"toy/a", "toy/b"}
