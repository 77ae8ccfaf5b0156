"""Mixes, their order, and batches of changing size: exact in number, the same when drawn again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strata.configs.dataset_presets import MixPart
from strata.errors import ConfigError, TrainError
from strata.train.mix import epoch_order, read_mix
from strata.train.view_counts import BatchOptions, BatchShape, batch_shape, plan_epoch


def test_a_mix_is_read():
    assert read_mix("75k @ blendedmvs + 1.5M@mvs_synth:val+ 260 @ eth3d", split="test") == {
        "blendedmvs": MixPart(split="test", sets=75_000),
        "mvs_synth": MixPart(split="val", sets=1_500_000),
        "eth3d": MixPart(split="test", sets=260),
    }
    assert sum(part.sets for part in read_mix("train").values()) == 250_000


@pytest.mark.parametrize(
    "text", ["75k @", "k @ a", "0 @ a", "1 @ a + 2 @ a", "1 @ a +", "1 @ __import__('os')"]
)
def test_what_is_no_mix_is_told(text: str):
    with pytest.raises(ConfigError, match="no part of a mix") as caught:
        read_mix(text)
    assert text in caught.value.where
    with pytest.raises(ConfigError, match="no mix 'trane'"):
        read_mix("trane")


MIX, ITEMS = {"a": 25, "b": 7, "c": 4}, {"a": 10, "b": 7, "c": 100}


def counted(order, name: str) -> np.ndarray:
    return np.bincount(order.item[order.dataset == order.datasets.index(name)], minlength=ITEMS[name])


def test_an_epoch_has_what_the_mix_says():
    order = epoch_order(MIX, ITEMS, seed=1, epoch=0)
    assert len(order) == 36
    assert np.bincount(order.dataset).tolist() == [25, 7, 4]
    assert set(counted(order, "a")) == {2, 3}
    assert set(counted(order, "b")) == {1}
    assert counted(order, "c").max() == 1
    drawn = set(zip(order.dataset.tolist(), order.item.tolist(), order.repetition.tolist(), strict=True))
    assert len(drawn) == 36
    assert order.repetition[order.dataset == 0].max() == 2
    assert 0 < np.abs(np.diff(order.dataset)).astype(bool).sum() > 3  # shuffled together


def test_an_order_is_that_of_its_seed_and_epoch():
    order = epoch_order(MIX, ITEMS, seed=1, epoch=0)
    again = epoch_order(MIX, ITEMS, seed=1, epoch=0)
    assert np.array_equal(order.item, again.item)
    for seed, epoch in ((1, 1), (2, 0)):
        other = epoch_order(MIX, ITEMS, seed=seed, epoch=epoch)
        assert set(other.item[other.dataset == 2]) != set(order.item[order.dataset == 2])
        assert not np.array_equal(other.dataset, order.dataset)


def test_another_dataset_changes_no_draws():
    alone = epoch_order({"c": 4}, {"c": 100}, seed=1, epoch=3)
    among = epoch_order(MIX, ITEMS, seed=1, epoch=3)
    assert sorted(alone.item) == sorted(among.item[among.dataset == 2])


def test_a_dataset_without_items_is_told():
    with pytest.raises(TrainError, match="b has nothing to draw from") as caught:
        epoch_order(MIX, {"a": 3, "c": 1}, seed=0, epoch=0)
    assert "a, c" in caught.value.why


def test_shapes_keep_to_the_memory():
    options = BatchOptions(max_images=48, views=(2, 24))
    shapes = [batch_shape(options, seed=0, epoch=0, step=step, rank=0) for step in range(600)]
    assert {shape.views for shape in shapes} == set(range(2, 25))
    assert all(shape.sets == 48 // shape.views for shape in shapes)
    assert np.bincount([shape.views for shape in shapes])[2:].max() < 60
    few = BatchOptions(max_images=3, views=(4, 4))
    assert batch_shape(few, seed=0, epoch=0, step=0, rank=0) == BatchShape(sets=1, views=4)


def test_shapes_are_those_of_seed_epoch_step_and_rank():
    alike, apart = (BatchOptions(views=(2, 24), aspects=(0.33, 1.0), alike=alike) for alike in (True, False))
    first = {"seed": 3, "epoch": 1, "step": 5}
    base = batch_shape(apart, rank=0, **first)
    assert batch_shape(apart, rank=0, **first) == base
    assert batch_shape(alike, rank=1, **first) == batch_shape(alike, rank=0, **first) == base
    others = [{**first, name: 9} for name in first]
    assert base not in [batch_shape(apart, rank=0, **other) for other in others]
    assert batch_shape(apart, rank=1, **first) != base


def test_aspects_give_whole_patches():
    options = BatchOptions(aspects=(0.33, 1.0))
    for step in range(50):
        shape = batch_shape(options, seed=0, epoch=0, step=step, rank=0)
        assert shape.aspect in {round(aspect / 100, 2) for aspect in range(33, 101)}
    assert BatchShape(sets=1, views=2, aspect=0.65).pixels(518, 14) == (336, 518)
    assert BatchShape(sets=1, views=2, aspect=0.01).pixels(518, 14) == (14, 518)
    assert BatchShape(sets=1, views=2).pixels(518, 14) == (518, 518)


@settings(max_examples=80, deadline=None)
@given(
    items=st.integers(0, 90),
    ranks=st.integers(1, 4),
    max_images=st.integers(1, 30),
    most=st.integers(2, 9),
    alike=st.booleans(),
)
def test_an_epoch_is_read_once_by_all_ranks_together(
    items: int, ranks: int, max_images: int, most: int, alike: bool
):
    options = BatchOptions(max_images=max_images, views=(2, most), alike=alike)
    steps = list(plan_epoch(items, options, seed=0, epoch=2, ranks=ranks))
    position = 0
    for number, plans in enumerate(steps):
        assert len(plans) == ranks
        for rank, plan in enumerate(plans):
            assert plan.shape == batch_shape(options, seed=0, epoch=2, step=number, rank=rank)
            assert plan.start == position
            assert 1 <= plan.stop - plan.start <= plan.shape.sets
            position = plan.stop
        if number < len(steps) - 1:
            assert all(plan.stop - plan.start == plan.shape.sets for plan in plans)
    assert 0 <= items - position < ranks


@pytest.mark.parametrize(
    ("wrong", "name"),
    [({"max_images": 0}, "max_images"), ({"views": (3, 2)}, "views"), ({"aspects": (0.0, 1.0)}, "aspects")],
)
def test_ranges_that_are_empty(wrong: dict, name: str):
    with pytest.raises(ConfigError) as caught:
        BatchOptions(**wrong)
    assert caught.value.where == f"batches.{name}"
