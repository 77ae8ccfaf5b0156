"""`strata train vggt`: stored tokens give the images' loss, runs continue, models are exported."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import strata
import torch
from safetensors.torch import load_file
from strata.configs.load import load
from strata.configs.schema import ExtractConfig, TrainVGGTConfig
from strata.configs.shipped import shipped
from strata.errors import ConfigError, EncoderError, LayerError, SelectionError, TrainError
from strata.extract.run import run as extract
from strata.kernels.dense_metrics import FORMS
from strata.train import held_out
from strata.train.distributed import Shard
from strata.train.fit_options import check_options
from strata.train.model_sizes import model_sizes
from strata.train.normalise import normalised
from strata.train.optimiser import clip_groups
from strata.train.vggt_batch import predict, predicted_geometry, true_geometry
from strata.train.vggt_command import AUGMENTS, make_task, run
from strata.train.vggt_model import check_pixels
from strata.train.vggt_words import WORDS, loss_options

ENCODER = {"encoder": "vit_tiny_demo", "weights": "random:0"}


def from_store(training, rooms, **words):
    return training(source="store", scenes=None, store=rooms.store, **{**ENCODER, **words})


def rows(out: str | Path) -> list[dict]:
    return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]


def first_batch(task) -> dict:
    batches = task.batches(0, 0, Shard())
    batch = next(batches)
    batches.close()
    return batch


@pytest.mark.parametrize("layer", ["norm", "block0"])
def test_stored_tokens_and_images_give_one_loss(training, rooms, console, layer):
    online, _ = make_task(training(sets=rooms.sets, layer=layer, **ENCODER), console)
    stored, _ = make_task(from_store(training, rooms, layer=layer), console)
    batches = [first_batch(task) for task in (online, stored)]
    losses = [task.loss(task.model, batch) for task, batch in zip((online, stored), batches, strict=True)]
    assert [d.names for d in batches[0]["draws"]] == [d.names for d in batches[1]["draws"]]
    assert losses[0].keys() == losses[1].keys()
    for name, value in losses[0].items():
        torch.testing.assert_close(value, losses[1][name], atol=2e-5, rtol=2e-5, msg=name)


def test_tokens_in_half_precision_give_the_loss_up_to_their_rounding(training, rooms, console, tmp_path):
    config = training(sets=rooms.sets, **ENCODER)
    store = str(tmp_path / "half.zarr")
    words = {"layers": ["norm"], "pixels": [42, 56], "orient": "scene", "storage": "f16", "sets": rooms.sets}
    extract(ExtractConfig(shards=rooms.shards, store=store, **ENCODER, **words), console)
    half, _ = make_task(from_store(training, SimpleNamespace(store=store)), console)
    batch = first_batch(half)
    assert batch["tokens"].dtype == torch.float16
    online, model = make_task(config, console)
    seen = first_batch(online)
    tokens = model.aggregator.encode(seen.pop("images").float() / 255)
    tokens = tokens.unflatten(2, batch["tokens"].shape[2:4]).requires_grad_()
    exact = online.loss(model, {**seen, "tokens": tokens})["loss"]
    (slope,) = torch.autograd.grad(exact, tokens)
    # A number is rounded by 2^-11 of itself at most, by 2^-25 near 0; a tenth is for what is not linear.
    rounding = (slope.abs() * (tokens.abs() * 2**-11 + 2**-25)).sum()
    bound = 1.1 * rounding.item() + 2e-5 * exact.item()
    assert bound < 0.01 * exact
    assert abs(half.loss(half.model, batch)["loss"] - exact) < bound
    swapped = {**batch, "tokens": batch["tokens"].flip(1)}
    assert abs(half.loss(half.model, swapped)["loss"] - exact) > bound


def test_a_run_leaves_a_model_that_answers_alike(training, console, tmp_path):
    config = training(best="min:loss", pictures_every=1)
    assert run(config, console) == 0
    out = Path(config.out)
    model = strata.VGGT.from_pretrained(out / "model")
    checkpoint = max((out / "checkpoints").iterdir())
    images = torch.rand(1, 2, 3, 42, 56, generator=torch.Generator().manual_seed(0))
    again = strata.VGGT.from_pretrained(checkpoint / "model.safetensors", config=model.config.to_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(images)["depth"], again(images)["depth"])
    assert (out / "best" / "model.safetensors").exists()
    assert len(list((out / "pictures" / "epoch-0001").glob("*.png"))) == 2
    validation = [row for row in rows(out) if row["kind"] == "validation"]
    assert {"loss", *held_out.NAMES} <= validation[-1].keys()


def test_a_continued_run_ends_with_the_same_weights(training, console, tmp_path):
    words = {"epochs": 2, "keep": 99, "checkpoint_every": 1, "augment": "mapanything", "val_scene": None}
    config = training(**words)
    run(config, console)
    weights = Path(config.out) / "model" / "model.safetensors"
    whole = load_file(weights)
    steps = sorted((Path(config.out) / "checkpoints").iterdir())
    assert len(steps) == 4
    for later in steps[1:]:
        shutil.rmtree(later)
    weights.unlink()
    run(config, console)
    assert "goes on after step 1" in console.file.getvalue()
    again = load_file(weights)
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_head_that_is_not_scored_is_left_out(training, console):
    _, model = make_task(training(point=0.0), console)
    assert model.point_head is None
    assert model.track_head is None
    assert model.depth_head is not None
    task, model = make_task(training(camera=0.0), console)
    assert model.camera_head is None
    assert set(task.validate(model.eval(), Shard())) == {"loss"}


def test_weights_are_fine_tuned_with_parts_frozen(training, console, tmp_path):
    _, model = make_task(training(), console)
    model.save(tmp_path / "start")
    config = training(model=str(tmp_path / "start"), freeze=["aggregator"], out=str(tmp_path / "tuned"))
    run(config, console)
    before, after = (strata.VGGT.from_pretrained(tmp_path / name) for name in ("start", "tuned/model"))
    same = {n for n, p in before.state_dict().items() if torch.equal(p, after.state_dict()[n])}
    assert {n for n in before.state_dict() if n.startswith("aggregator.")} <= same
    assert "depth_head.scratch.output_conv2.2.weight" not in same


def test_an_encoder_is_trained_where_asked(training, console):
    config = training(train_encoder=True, val_scene=None, **ENCODER)
    _, model = make_task(config, console)
    before = {name: p.clone() for name, p in model.aggregator.patch_embed.named_parameters()}
    run(config, console)
    after = strata.VGGT.from_pretrained(Path(config.out) / "model").aggregator.patch_embed.state_dict()
    assert before
    assert any(not torch.equal(p, after[name]) for name, p in before.items())
    _, model = make_task(training(**ENCODER), console)
    assert not list(model.aggregator.patch_embed.parameters())


def test_measures_of_the_truth_itself_are_perfect(training, console):
    task, _ = make_task(training(max_images=9), console)
    batch = next(iter(task.held_out._batches(Shard())))
    truth, valid = true_geometry(batch["depth"], batch["K_px"], batch["world_from_cam"])

    class Oracle(torch.nn.Module):
        def forward(self, images, tokens=None):
            return {"pose_enc": None, "depth": None}

    oracle = Oracle()
    oracle.register_parameter("p", torch.nn.Parameter(torch.zeros(1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "predicted_geometry", lambda answer: normalised(truth, valid))
        found = task.held_out.measure(oracle, lambda batch: {"loss": torch.tensor(0.25)}, Shard())
    assert found["loss"] == 0.25
    assert found["pose_auc_30"] > 99
    assert found["pointmaps_abs_rel"] < 1e-4
    assert found["z_depth_inlier_thres_103"] == 1


def test_depth_and_cameras_stand_in_for_points_and_points_for_depth(training, console):
    task, model = make_task(training(), console)
    batch = next(iter(task.held_out._batches(Shard())))
    with torch.no_grad():
        answer = predict(model.eval(), batch)
    of_depth = predicted_geometry({k: v for k, v in answer.items() if not k.startswith("world_points")})
    of_points = predicted_geometry({"pose_enc": answer["pose_enc"], "world_points": of_depth.points_world})
    torch.testing.assert_close(of_points.depth, answer["depth"][..., 0], atol=1e-4, rtol=1e-4)


def test_ranks_share_the_measuring(training, console, monkeypatch):
    task, model = make_task(training(max_images=2), console)
    alone = task.validate(model.eval(), Shard())
    sums = []
    monkeypatch.setattr(held_out, "sum_over_ranks", lambda values, shard: sums.append(values) or values)
    for rank in range(2):
        task.validate(model, Shard(rank=rank, count=2))
    total, count = torch.stack(sums).sum((0, 2)).tolist()
    assert count[0] == len(task.held_out.draws)
    together = [t / c for t, c in zip(total, count, strict=True)]
    assert together[0] == pytest.approx(alone["loss"], rel=1e-6)
    assert together[1 + held_out.NAMES.index("pose_ate_rmse")] == pytest.approx(
        alone["pose_ate_rmse"], rel=1e-6
    )


@pytest.mark.parametrize("name", shipped("training"))
def test_presets_are_whole(name):
    config = load(TrainVGGTConfig, ["out=run"], Path(name))
    check_options(config)
    loss_options(config)
    sizes = model_sizes(config.model)
    if sizes is not None:
        with torch.device("meta"):
            model = strata.VGGT.from_config(
                {**sizes, **({"encoder": config.encoder} if config.encoder else {})}
            )
        check_pixels((config.pixels[0], config.pixels[1]), model.config.patch_size)
        clip_groups({n: p for n, p in model.named_parameters() if p.requires_grad}, config)


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ({"source": "both"}, ConfigError, "source=both is not known"),
        ({"scenes": None}, ConfigError, "scenes= must be given"),
        ({"source": "store"}, ConfigError, "store= must be given"),
        ({"pixels": [42, 50]}, EncoderError, r"multiples of its patch size 14[\s\S]*42 x 56"),
        ({"pixels": "big"}, ConfigError, "pixels=big is no size"),
        ({"augment": "much"}, ConfigError, "augment=much"),
        ({"metrics": "bended"}, ConfigError, "mended"),
        ({"fit": "squeeze"}, ConfigError, "fit=squeeze"),
        ({"views": [2]}, ConfigError, "no range"),
        ({"camera": 0.0, "depth": 0.0, "point": 0.0}, ConfigError, "loss has no part"),
        ({"model": "nowhere.yaml"}, ConfigError, "vggt_tiny"),
        ({"best": "max:pose_auc_3"}, ConfigError, r"best=max:pose_auc_3[\s\S]*mean pose_auc_30"),
        ({"best": "min:loss", "val_scene": None}, ConfigError, "nothing is held out"),
        ({"encoder": "oracle_world"}, EncoderError, "source=store"),
        ({"encoder": "oracle_rgb", "train_encoder": True}, EncoderError, "without train_encoder=true"),
    ],
)
def test_options_that_cannot_be_meant(training, console, words, error, said):
    with pytest.raises(error, match=said):
        make_task(training(**words), console)


def test_words_that_are_known_mean_something():
    assert set(WORDS["augment"]) == set(AUGMENTS)
    assert set(WORDS["metrics"]) == set(FORMS)


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (
            {"layer": "block3"},
            LayerError,
            r"has no layer 'block3' of[\s\S]*encoder=vit_tiny_demo .*layers=block3",
        ),
        ({"encoder": "dinov2_base"}, SelectionError, "dinov2_base"),
        ({"train_encoder": True}, ConfigError, "cannot be trained"),
        ({"aspects": [0.5, 1.0]}, ConfigError, "one size"),
    ],
)
def test_stores_that_do_not_do(training, rooms, console, words, error, said):
    with pytest.raises(error, match=said):
        make_task(from_store(training, rooms, **words), console)


def test_a_checkpoint_of_other_options_is_not_continued(training, console):
    run(training(val_scene=None), console)
    with pytest.raises(TrainError, match=r"point: the checkpoint has 1\.0, asked is 2\.0"):
        run(training(val_scene=None, point=2.0), console)
    with pytest.raises(TrainError, match=r"task\.data"):
        run(training(val_scene=None, scene="*/room_0"), console)


def test_the_truth_is_exact_inside_of_autocast(training, console):
    task, _ = make_task(training(), console)
    batch = next(iter(task.held_out._batches(Shard())))
    geometry = batch["depth"], batch["K_px"], batch["world_from_cam"]
    exact, _ = true_geometry(*geometry)
    with torch.autocast("cpu", torch.bfloat16):
        inside, _ = true_geometry(*geometry)
    assert torch.equal(exact.points_world, inside.points_world)


def test_a_store_without_depth_says_so(training, new_pipeline, new_view, tmp_path, console):
    made = new_pipeline(tmp_path)
    made.add("a", views=3)
    words = {"scene": None, "val_scene": None, "encoder": "colour", "layer": "norm", "sets": None}
    made.extract(views="none")
    config = from_store(training, SimpleNamespace(store=str(made.root)), **words)
    with pytest.raises(SelectionError, match="no depth and cameras"):
        make_task(replace(config, scene="*"), console)
    bare = new_pipeline(tmp_path / "bare")
    bare.add("a", views=3)
    bare.change("a", lambda views: [replace(view, depth=None) for view in views])
    bare.extract()
    config = from_store(training, SimpleNamespace(store=str(bare.root)), **words)
    with pytest.raises(TrainError, match="no view has depth"):
        make_task(replace(config, scene="*"), console)


def test_other_sets_are_other_data(training, few_sets, console):
    words = {"val_scene": None, "scene": "*/room_0"}
    tasks = [make_task(training(sets=few_sets(n), **words), console)[0] for n in (1, 2)]
    assert tasks[0].identity() != tasks[1].identity()


def test_halves_change_the_loss_little(training, console):
    task, model = make_task(training(), console)
    batch = next(iter(task.held_out._batches(Shard())))
    with torch.no_grad():
        exact = task.loss(model, batch)
        with torch.autocast("cpu", torch.bfloat16):
            rough = task.loss(model, batch)
    assert math.isclose(exact["loss"], rough["loss"], rel_tol=0.05)
    assert exact["loss"] != rough["loss"]
