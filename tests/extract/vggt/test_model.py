"""What a VGGT answers for any input: shapes, chunks, what it keeps, precision, compilation, bad input."""

from __future__ import annotations

from typing import Any

import pytest
import strata
import torch
from strata.errors import ConfigError, EncoderError
from strata.extract.encoders.vggt.config import VGGTConfig
from strata.extract.encoders.vggt.model import VGGT

QUERIES = torch.tensor([[3.0, 4.0], [20.0, 10.5]])


def same(a: dict[str, Any], b: dict[str, Any], atol: float = 1e-5) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=atol, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (2, 1, 3, 16, 24)),
        ({"num_register_tokens": 4}, (1, 9, 3, 32, 8)),
        ({"patch_size": 16, "img_size": 64}, (1, 2, 3, 48, 16)),
        ({"encoder": "conv"}, (1, 3, 3, 8, 8)),
        (
            {"encoder": {"num_heads": 3, "depth": 1, "num_register_tokens": 0, "embed_dim": 24}},
            (1, 2, 3, 24, 16),
        ),
        (
            {"num_register_tokens": 0, "qk_norm": False, "depth": 2, "embed_dim": 24, "num_heads": 3},
            (1, 2, 3, 16, 8),
        ),
    ],
    ids=["one view", "nine views", "patch 16", "conv", "wider encoder", "other depth"],
)
@torch.no_grad()
def test_outputs_of_any_configuration(
    config: dict[str, Any], changes: dict[str, Any], shape: tuple[int, ...]
):
    model = strata.VGGT.from_config({**config, **changes}).eval()
    sets, views, _, height, width = shape
    images = torch.rand(shape)
    outputs = model(images, QUERIES.expand(sets, -1, -1) / 4)
    assert {name: tuple(value.shape) for name, value in outputs.items() if name != "pose_enc_list"} == {
        "pose_enc": (sets, views, 9),
        "depth": (sets, views, height, width, 1),
        "depth_conf": (sets, views, height, width),
        "world_points": (sets, views, height, width, 3),
        "world_points_conf": (sets, views, height, width),
        "track": (sets, views, 2, 2),
        "vis": (sets, views, 2),
        "conf": (sets, views, 2),
        "images": shape,
    }
    assert len(outputs["pose_enc_list"]) == 2
    assert (outputs["depth_conf"] > 1).all()
    torch.testing.assert_close(outputs["track"][:, 0], QUERIES.expand(sets, -1, -1) / 4)
    # Sets do not see each other.
    alone = model(images[:1])
    torch.testing.assert_close(alone["depth"][0], outputs["depth"][0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_set_may_come_without_its_dimension(tiny: VGGT, images: torch.Tensor):
    same(tiny(images[0], QUERIES), tiny(images, QUERIES[None]))
    same(tiny(list(images[0])), tiny(images))


@torch.no_grad()
def test_chunks_change_no_number(config: dict[str, Any], images: torch.Tensor):
    whole = VGGT.from_config(config).eval()
    one_by_one = VGGT.from_config({**config, "head_frames": 2}).eval()
    calls = []
    one_by_one.depth_head.register_forward_hook(lambda module, args, output: calls.append(len(output)))
    same(whole(images, QUERIES), one_by_one(images, QUERIES))
    assert calls == [2, 1]


@torch.no_grad()
def test_only_wanted_layers_are_kept_and_run(tiny: VGGT, images: torch.Tensor):
    ran = []
    for k, block in enumerate(tiny.aggregator.global_blocks):
        block.register_forward_hook(lambda module, args, output, k=k: ran.append(k))
    kept = tiny.aggregate(images, [1])
    assert list(kept) == [1]
    assert ran == [0, 1]
    assert kept[1].shape == (1, 3, 3 + 6, 32)
    every = tiny.aggregate(images, range(4))
    assert torch.equal(every[1], kept[1])
    with pytest.raises(EncoderError, match="no block 4"):
        tiny.aggregate(images, [4])


def test_heads_say_what_they_read(config: dict[str, Any]):
    assert VGGTConfig().dpt_layers == (4, 11, 17, 23)
    model = VGGT.from_config(config | {"depth": 6, "enable_point": False})
    seen = []
    model.aggregator.register_forward_hook(lambda module, args, output: seen.append(sorted(output)))
    model(torch.rand(1, 2, 3, 16, 16))
    model.depth_head = None
    model(torch.rand(1, 2, 3, 16, 16))
    assert seen == [[1, 2, 3, 5], [5]]


@torch.no_grad()
def test_autocast_keeps_layers_small_and_heads_exact(tiny: VGGT, images: torch.Tensor):
    exact = tiny(images, QUERIES)
    with torch.autocast("cpu", torch.bfloat16):
        kept, outputs = tiny.aggregate(images, [3]), tiny(images, QUERIES)
    assert kept[3].dtype == torch.bfloat16
    for name in ("pose_enc", "depth", "depth_conf", "world_points", "track"):
        assert outputs[name].dtype == torch.float32
        torch.testing.assert_close(outputs[name], exact[name], atol=0.3, rtol=0.1)


@torch.no_grad()
def test_a_model_in_16_bit_runs_whole(tiny: VGGT, images: torch.Tensor):
    exact = tiny(images, QUERIES)
    outputs = tiny.bfloat16()(images, QUERIES)
    assert outputs["depth"].dtype == torch.bfloat16
    torch.testing.assert_close(outputs["track"], exact["track"], atol=0.5, rtol=0.1)


@pytest.mark.parametrize("training", [False, True])
def test_compiles_without_a_break(config: dict[str, Any], images: torch.Tensor, training: bool):
    config |= {"depth": 1, "camera_head": {"trunk_depth": 1, "num_heads": 2, "iters": 1}}
    config["track_head"]["iters"] = 1
    if training:  # the heads know no modes
        config |= {"camera_head": None, "track_head": None, "enable_point": False}
    model = VGGT.from_config(config).train(training)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    given = (images,) if training else (images, QUERIES)
    same(compiled(*given), model(*given))


def test_training_mode(config: dict[str, Any], images: torch.Tensor, monkeypatch: pytest.MonkeyPatch):
    from strata.extract.encoders.vggt import checkpointing

    runs = []
    plain = checkpointing.checkpoint
    monkeypatch.setattr(
        checkpointing, "checkpoint", lambda *args, **options: (runs.append(1), plain(*args, **options))[1]
    )
    model = VGGT.from_config(config).train()
    assert "images" not in model(images)
    assert len(runs) == 2 * 4 + 1
    model.checkpointing = False
    model(images)
    assert len(runs) == 2 * 4 + 1
    model.checkpointing = True
    model.freeze_encoder()
    model.train()
    assert not model.aggregator.patch_embed.training
    model(images)["depth"].sum().backward()
    assert len(runs) == 4 * 4 + 1
    assert all(p.grad is None for p in model.aggregator.patch_embed.parameters())
    assert model.aggregator.camera_token.grad is not None


def test_the_seed_names_the_weights(config: dict[str, Any]):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two = VGGT.from_config(config), VGGT.from_config(config)
    other = VGGT.from_config({**config, "seed": 1})
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.aggregator.camera_token, other.aggregator.camera_token)
    assert one.weights == "random"


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.rand(1, 2, 3, 20, 24), "16 x 24 and 24 x 24"),
        (torch.rand(2, 1, 16, 24), "red, green and blue"),
        (torch.rand(1, 2, 4, 16, 24), "alpha on white"),
        (torch.rand(3, 16, 24), r"\[V, 3, H, W\]"),
        (torch.rand(1, 0, 3, 16, 24), "no views"),
        ([], "no views"),
        ([torch.rand(3, 16, 24), torch.rand(3, 24, 16)], "one size"),
        (torch.zeros(1, 2, 3, 16, 24, dtype=torch.uint8), "divide by 255"),
        (torch.rand(1, 2, 3, 16, 24).index_fill(1, torch.tensor(1), torch.nan), "set 0, view 1"),
        (None, "no images"),
    ],
    ids=["size", "grey", "alpha", "one image", "no views", "empty", "mixed", "bytes", "nan", "nothing"],
)
def test_bad_images(tiny: VGGT, images: Any, says: str):
    with pytest.raises(EncoderError) as caught:
        tiny(images)
    assert says.replace("\\", "") in str(caught.value)
    assert caught.value.where
    assert caught.value.fix


@pytest.mark.parametrize(
    "points",
    [torch.zeros(5, 3), torch.zeros(2, 5, 2), torch.zeros(1, 0, 2), torch.full((1, 2, 2), torch.nan)],
)
def test_bad_query_points(tiny: VGGT, images: torch.Tensor, points: torch.Tensor):
    with pytest.raises(EncoderError) as caught:
        tiny(images, points)
    assert caught.value.where == "query_points"


def test_query_points_need_the_head(config: dict[str, Any], images: torch.Tensor):
    model = VGGT.from_config({**config, "enable_track": False, "camera_head": None}).eval()
    assert set(model(images)) == {"depth", "depth_conf", "world_points", "world_points_conf", "images"}
    with pytest.raises(EncoderError, match="tracks no points"):
        model(images, QUERIES)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"patchsize": 14}, "did you mean patch_size"),
        ({"camera_head": {"heads": 2}}, "no camera_head.heads"),
        ({"depth": "four"}, "depth = 'four'"),
        ({"depth": 0}, "positive"),
        ({"depth": True}, "depth = True"),
        ({"dpt": {"out_channels": 4}}, "a list of int"),
        ({"dpt": 3}, "a section"),
        ({"dpt": {"intermediate_layer_idx": [0, 1, 2, 9], "out_channels": [6, 8, 8]}}, "[9]"),
        ({"embed_dim": 20}, "multiple of 4"),
        ({"camera_head": {"num_heads": 5}}, "5 heads"),
        ({"img_size": 30}, "img_size 30"),
        ({"track_head": {"features": 6}}, "track_head.features 6"),
        ({"encoder": {"type": "vit"}}, "dinov2, conv, registered"),
        ({"encoder": {"type": "registered"}}, "encoder.name"),
        ({"encoder": 3}, "encoder = 3"),
    ],
)
def test_bad_configs(config: dict[str, Any], changes: dict[str, Any], says: str):
    with pytest.raises(ConfigError) as caught:
        VGGT.from_config({**config, **changes})
    assert says in str(caught.value)


def test_a_config_survives_json(config: dict[str, Any]):
    import json

    for encoder in (config["encoder"], "conv", {"name": "dinov2_base", "frozen": False}):
        parsed = VGGTConfig.from_dict({**config, "encoder": encoder, "track_head": None})
        assert VGGTConfig.from_dict(json.loads(json.dumps(parsed.to_dict()))) == parsed
