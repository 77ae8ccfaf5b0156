"""The loader: what comes when, on which rank, and from where it continues."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from strata.errors import SelectionError
from strata.store.batch_order import epoch_order, step_count
from strata.store.feature_store import FeatureStore
from strata.store.schema import ViewSet


@pytest.fixture
def selection(pipeline, new_view):
    for name in ("a", "b", "c"):
        pipeline.add(name, views=4)
    upright = [new_view(f"p{k}", np.random.default_rng(k), 16, 24, k) for k in range(3)]
    pipeline.change("b", lambda views: [*views, *upright])
    pipeline.extract()
    return FeatureStore.open(pipeline.root).select("colour")


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_item_comes_once_and_every_rank_steps_alike(ranks, seed, drop_last):
    for sizes in itertools.product([0, 1, 5, 12, 13], [0, 2, 7]):
        kinds = [np.arange(sizes[0]), 100 + np.arange(sizes[1])]
        words = {"batch": 2, "ranks": ranks, "drop_last": drop_last}
        order = epoch_order(kinds, seed=seed, epoch=1, **words)
        assert len(order) == step_count(sizes, **words)
        given = []
        for step, rank in itertools.product(range(len(order)), range(ranks)):
            items, repeated = order.items(step, rank)
            assert 1 <= len(items) <= 2
            assert len({item >= 100 for item in items.tolist()}) == 1
            given += [] if repeated else items.tolist()
        assert len(set(given)) == len(given)
        every = sum(size // (2 * ranks) * 2 * ranks if drop_last else size for size in sizes)
        assert len(given) == every


def test_the_order_is_of_seed_and_epoch():
    def order(seed, epoch):
        made = epoch_order([np.arange(40)], batch=8, ranks=1, seed=seed, epoch=epoch)
        return [made.items(step, 0)[0].tolist() for step in range(len(made))]

    assert order(0, 0) == order(0, 0)
    assert len({str(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert list(itertools.chain(*order(None, 5))) == list(range(40))


def test_batches_hold_what_the_store_holds(selection):
    loader = selection.loader(batch=3, fields=("tokens", "prefix", "depth_m", "image", "token_valid"))
    batches = list(loader)
    assert len(batches) == len(loader) == 5
    assert sorted(len(batch) for batch in batches) == [3, 3, 3, 3, 3]
    seen = [name for batch in batches for name in batch.views]
    assert sorted(seen) == sorted(f"{row['scene']}/{row['frame']}" for row in selection.table())
    assert seen != sorted(seen)
    for batch in batches:
        assert batch.tokens["norm"].shape == (3, *batch.grid, 3)
        expected = selection.read(batch.views, loader.options.fields)
        np.testing.assert_array_equal(batch.tokens["norm"], expected.tokens["norm"])
        np.testing.assert_array_equal(batch.prefix["block0"], expected.prefix["block0"])
        np.testing.assert_array_equal(batch.depth_m, expected.depth_m)
        np.testing.assert_array_equal(batch.image, expected.image)
        np.testing.assert_array_equal(batch.token_valid, expected.token_valid)
        assert batch.cam_from_world is None
    in_order = [name for batch in selection.loader(batch=4, shuffle=False) for name in batch.views]
    assert in_order[:4] == [f"toy/a/00{k}" for k in range(4)]


def test_many_views_of_a_batch_are_read_by_several_jobs(pipeline):
    pipeline.add("a", views=21)
    pipeline.extract()
    selection = FeatureStore.open(pipeline.root).select("colour", layers=["norm"])
    (batch,) = selection.loader(batch=64, seed=1)
    np.testing.assert_array_equal(batch.tokens["norm"], selection.read(batch.views).tokens["norm"])


def test_memory_is_used_again_when_nobody_holds_it(selection):
    """A batch that is kept, or a part of it, stays as it is whatever is read after it."""
    loader = selection.loader(batch=3, fields=("tokens", "depth_m"))
    kept, copies, places = [], [], set()
    for _ in range(4):
        for number, batch in enumerate(loader):
            places.add(batch.tokens["norm"].data_ptr())
            if number == 0:
                kept += [batch.tokens["norm"][1:, :, 2], batch.depth_m.numpy()[0]]
                copies += [one.clone() if isinstance(one, torch.Tensor) else one.copy() for one in kept[-2:]]
    for one, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(one, copy)
    assert len(places) < 4 * len(loader)


def test_it_continues_where_its_state_was_taken(selection):
    def views(loader, epochs):
        return [batch.views for _ in range(epochs) for batch in loader]

    whole = views(selection.loader(batch=2, seed=5), 3)
    steps = len(selection.loader(batch=2))
    assert len(whole) == 3 * steps
    for stop in (0, 1, steps - 1, steps, steps + 3):
        first = selection.loader(batch=2, seed=5)
        taken = []
        for batch in itertools.chain(first, first):
            if len(taken) == stop:
                break
            taken.append(batch.views)
        # One more was given than is kept, as when a run dies between two checkpoints.
        second, state = selection.loader(batch=2, seed=5), None
        source = itertools.chain(second, second)
        state = second.state_dict()
        for _ in range(stop):
            next(source)
            state = second.state_dict()
        third = selection.loader(batch=2, seed=5)
        third.load_state_dict(state)
        rest = views(third, 3)
        assert taken + rest[: len(whole) - stop] == whole


def test_a_broken_off_epoch_goes_on(selection):
    whole = [batch.views for batch in selection.loader(batch=2)]
    loader = selection.loader(batch=2)
    first = [batch.views for batch, _ in zip(loader, range(3), strict=False)]
    assert first == whole[:3]
    given = loader.state_dict()["step"]
    assert [batch.views for batch in loader] == whole[given:]


def test_ranks_share_an_epoch(selection):
    ranks = [list(selection.loader(batch=2, rank=rank, ranks=4)) for rank in range(4)]
    assert len({len(batches) for batches in ranks}) == 1
    given = [name for batches in ranks for batch in batches if not batch.repeated for name in batch.views]
    assert len(given) == len(set(given)) == len(selection)
    assert any(batch.repeated for batches in ranks for batch in batches)
    states = []
    for rank in range(4):
        loader = selection.loader(batch=2, rank=rank, ranks=4)
        next(iter(loader))
        states.append(loader.state_dict())
    assert all(state == states[0] for state in states)


def view_set(selection, scene, *names):
    views = {view.name: view for block in selection.scene(scene).parts for view in block.views}
    return ViewSet(scene=scene, members=names, images=tuple(views[name].image_digest for name in names))


def test_batches_of_sets(selection):
    pairs = [view_set(selection, f"toy/{scene}", "002", "000") for scene in "abc"]
    three = view_set(selection, "toy/b", "p2", "p0", "p1")
    mixed = view_set(selection, "toy/b", "000", "p0")
    stale = ViewSet(scene="toy/a", members=("000", "001"), images=("0" * 64, "1" * 64))
    loader = selection.loader([*pairs, three, mixed, stale], batch=2, fields=("tokens", "depth_m"))
    assert loader.left_out == 2
    batches = list(loader)
    assert len(batches) == len(loader) == 3
    given = [one.digest for batch in batches for one in batch.sets]
    assert sorted(given) == sorted(one.digest for one in [*pairs, three])
    for batch in batches:
        shape = (len(batch.sets), len(batch.sets[0].members))
        assert batch.tokens["norm"].shape[:2] == batch.depth_m.shape[:2] == shape
        for i, one in enumerate(batch.sets):
            names = [f"{one.scene}/{name}" for name in one.members]
            assert list(batch.views[i * shape[1] : (i + 1) * shape[1]]) == names
            np.testing.assert_array_equal(batch.tokens["norm"][i], selection.read(names).tokens["norm"])
    with pytest.raises(SelectionError, match="none of the 1 view sets"):
        selection.loader([stale])


def test_layers_stored_in_several_ways(pipeline):
    pipeline.add("a")
    pipeline.add("b")
    pipeline.add("c")
    pipeline.extract(layers=["norm"], storage="bf16")
    pipeline.extract(layers=["norm"], storage="f32", scene="toy/b")
    selection = FeatureStore.open(pipeline.root).select("colour")
    batches = {batch.tokens["norm"].dtype: batch for batch in selection.loader(batch=8)}
    assert batches.keys() == {torch.bfloat16, torch.float32}
    for batch in batches.values():
        expected = selection.read(batch.views).tokens["norm"]
        np.testing.assert_array_equal(batch.tokens["norm"].float(), expected)
    (mixed,) = selection.to_torch()
    assert mixed.tokens["norm"].dtype == torch.float32
    np.testing.assert_array_equal(mixed.tokens["norm"], selection.load()[0].tokens["norm"])


def test_small_tokens_stay_small(pipeline):
    """Also beside others: the first bundle has u8, the second f16."""
    pipeline.add("a")
    pipeline.extract(storage="u8")
    selection = FeatureStore.open(pipeline.root).select("colour")
    (batch,) = selection.loader(batch=8, fields=("tokens", "prefix"), shuffle=False)
    exact = np.concatenate([block.tokens("norm") for block in selection.parts])
    assert batch.tokens["norm"].values.dtype == torch.uint8
    np.testing.assert_allclose(batch.tokens["norm"].dequantize(), exact, atol=1e-6)
    np.testing.assert_allclose(selection.load()[0].tokens["norm"], exact, atol=1e-6)
    assert batch.prefix["norm"].dtype == torch.float32
    pairs = [view_set(selection, "toy/a", "002", "000"), view_set(selection, "toy/a", "001", "002")]
    (batch,) = selection.loader(pairs, batch=2, shuffle=False)
    np.testing.assert_allclose(batch.tokens["norm"].dequantize(), exact[[[2, 0], [1, 2]]], atol=1e-6)
    assert selection.nbytes == selection.load()[0].tokens["norm"].nbytes * 2
    pipeline.add("b")
    pipeline.extract(storage="f16", scene="toy/b")
    mixed = FeatureStore.open(pipeline.root).select("colour")
    assert {block.layers["norm"] for block in mixed.parts} == {"u8", "f16"}
    together = np.concatenate([block.tokens("norm").astype(np.float32) for block in mixed.parts])
    np.testing.assert_allclose(mixed.load()[0].tokens["norm"], together, atol=1e-6)
    assert len(list(mixed.loader(batch=8))) == 2


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"batch": 0}, "cannot be meant"),
        ({"rank": 2, "ranks": 2}, "cannot be meant"),
        ({"fields": ("depth",)}, "no field 'depth'"),
    ],
)
def test_options_that_cannot_be_meant(selection, options, what):
    with pytest.raises(SelectionError, match=what):
        selection.loader(**options)


def test_a_state_of_another_loader_is_refused(selection):
    state = selection.loader(batch=2, seed=1).state_dict()
    with pytest.raises(SelectionError) as caught:
        selection.loader(batch=2, seed=2).load_state_dict(state)
    assert caught.value.why == "seed: saved 1, now 2"
    with pytest.raises(SelectionError, match="another loader"):
        selection.where(scene="a").loader(batch=2, seed=1).load_state_dict(state)
