"""Names of tensors in checkpoints of transformers, whichever release wrote them.

The library has renamed its modules several times, and renames tensors while it loads. Here both the
checkpoint's names and the model's become plain ones (`block0.attention.query.weight`), so that loading
and the digest of the weights are the same under every release.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .weights import check_state

_RENAMES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^(vit|dinov2|dinov2_with_registers|ijepa|vision_model)\.", ""),
        (r"^(encoder|model)\.", ""),
        (r"^layers?\.(?=\d)", "block"),
        (r"\.(attention\.attention|self_attn)\.", ".attention."),
        (r"\.q_proj\.", ".query."),
        (r"\.k_proj\.", ".key."),
        (r"\.v_proj\.", ".value."),
        (r"\.attention\.(output\.dense|o_proj|out_proj)\.", ".attention.out."),
        (r"^(block\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
        (r"^(block\d+)\.output\.dense\.", r"\1.mlp.fc2."),
        (r"\.mlp\.down_proj\.", ".mlp.weights_out."),
    )
]

# Features pass none of these: other towers, heads, decoders, and what only pre-training uses.
_UNUSED = re.compile(
    r"(text_model|decoder|pooler|classifier|head|visual_projection|text_projection)\..*"
    r"|logit_scale|logit_bias|embeddings\.(mask_token|position_ids)"
)

# The two halves of a SwiGLU's first layer, one tensor in checkpoints: first the gate.
_HALVES = re.compile(r"(.*\.mlp\.)(gate|up)_proj(\..*)")


def plain_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that features depend on, by their plain names."""
    named = {plain_name(name): tensor for name, tensor in state.items()}
    used = {name: tensor for name, tensor in named.items() if not _UNUSED.fullmatch(name)}
    for name in [name for name in used if "gate_proj" in name]:
        up = name.replace("gate_proj", "up_proj")
        if up in used:
            used[_whole(name)] = torch.cat((used.pop(name), used.pop(up)))
    return used


def fill(model: nn.Module, state: Mapping[str, Tensor], where: object) -> None:
    """Put a checkpoint's tensors into the model, in the model's own dtype.

    Raises:
        EncoderError: a tensor is missing, unexpected or of another shape.
    """
    own, given = model.state_dict(), plain_state(state)
    check_state(given, plain_state(own), where)
    for name, tensor in own.items():
        plain = plain_name(name)
        half = _HALVES.fullmatch(plain)
        if half and _whole(plain) in given:
            tensor.copy_(given[_whole(plain)].chunk(2)[half[2] == "up"])
        elif plain in given:
            tensor.copy_(given[plain])


def plain_name(name: str) -> str:
    """`block0.attention.query.weight` of `vit.encoder.layer.0.attention.attention.query.weight`."""
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def _whole(half: str) -> str:
    return _HALVES.sub(r"\1weights_in\3", half)
