"""What a run said, logged and left."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file


def said(console) -> str:
    return console.file.getvalue()


def rows(fitted):
    log = fitted.checkpoint.parents[1] / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()]


def weights(fitted):
    return load_file(fitted.checkpoint / "model.safetensors")


def same(one, two) -> bool:
    return all(torch.equal(weights(one)[name], weights(two)[name]) for name in weights(one))
