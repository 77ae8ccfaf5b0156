"""Making a bundle's finished groups visible, with why some views are missing."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from ..store.layout import GroupSpec
from ..store.writer import GroupWriter, row_labels
from .plan import BundlePlan, Plan
from .prepare import PlacedCamera, Request, placed_camera, unknown_camera

Reasons = Mapping[tuple[str, int, str | None], str]
UNKNOWN = "the view failed in an earlier run"


def commit_bundle(
    plan: Plan, part: BundlePlan, reasons: Reasons, origin: Mapping[str, str], again: bool = False
) -> None:
    """Commit every group of a bundle that is not visible yet; renamed frames get their new labels.

    Args:
        plan, part: whose groups.
        reasons: by (bundle id, row, layer or None), why a view failed, of this and earlier runs.
        origin: what the numbers came from: see `provenance`.
        again: rewrite the documents of layers that are visible (failed views were retried).
    """
    labels = row_labels(part.bundle, part.views)
    cameras: list[PlacedCamera] | None = None
    for spec in part.others.values():
        writer = GroupWriter(plan.root, spec)
        if not writer.committed:
            cameras = cameras or _cameras(plan, part)
            whole = {name: np.stack([getattr(camera, name) for camera in cameras]) for name in spec.whole}
            writer.commit(labels, whole=whole)
        else:
            writer.label(labels)
    for layer, spec in part.layers.items():
        writer = GroupWriter(plan.root, spec)
        if again or not writer.committed:
            attributes = _layer_attributes(plan, part, layer, spec, reasons, origin)
            writer.commit(labels, attributes=attributes)
        else:
            writer.label(labels)


def _layer_attributes(
    plan: Plan,
    part: BundlePlan,
    layer: str,
    spec: GroupSpec,
    reasons: Reasons,
    origin: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    bundle = part.bundle.id
    missing = {
        str(row): reasons.get((bundle, row, layer)) or reasons.get((bundle, row, None)) or UNKNOWN
        for row in GroupWriter(plan.root, spec).empty_rows("tokens")
    }
    encoding = {"encoding": "bfloat16"} if plan.storages[layer] == "bf16" else {}
    tokens = {"missing": missing, "provenance": dict(origin), **encoding}
    return {"tokens": tokens, "prefix": {"names": list(plan.encoder.prefix_names()), **encoding}}


def provenance(device_name: str, weights: str) -> dict[str, str]:
    """What the numbers came from, without times: libraries, device, weights as asked."""
    libraries = {name: _version(name) for name in ("strata3d", "torch", "timm", "numpy", "pillow")}
    return {**libraries, "device": device_name, "weights": weights}


def device_name(device: str) -> str:
    """`cuda NVIDIA H200`, `cpu x86_64`."""
    on = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    return f"{device.partition(':')[0]} {on}"


def _cameras(plan: Plan, part: BundlePlan) -> list[PlacedCamera]:
    info = plan.encoder.info
    request = Request(
        preprocess=plan.key.preprocess, grid=part.bundle.grid, patch=info.patch_size, stride=info.stride
    )
    return [
        unknown_camera() if source is None else placed_camera(source.view, request) for source in part.sources
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
