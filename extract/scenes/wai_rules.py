"""What a dataset asks for beyond the WAI format: one entry per dataset that asks for anything."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DatasetRules:
    """The rules of one dataset.

    Attributes:
        depths: modalities that may hold depth; a frame's first is taken.
        masks: by the name they get, the modality that holds them; depth counts where all are on.
        far_percentile: depth beyond this percentile of a view counts as none, see `View`.
        version: raised when the rules change what a view's geometry is. It enters the geometry
            digest, so no version may stand for two different treatments of the same bytes.
    """

    depths: tuple[str, ...] = ("depth", "rendered_depth")
    masks: tuple[tuple[str, str], ...] = ()
    far_percentile: float | None = None
    version: int = 1


# Depth of generated worlds reaches to the sky; the farthest twentieth is not trusted.
GENERATED = DatasetRules(far_percentile=95.0, version=2)
PREDICTED_MASK = DatasetRules(masks=(("moge2", "pred_mask/moge2"),))
RULES = {
    "blendedmvs": PREDICTED_MASK,
    "mpsd": PREDICTED_MASK,
    "mvs_synth": GENERATED,
    "scannetppv2": DatasetRules(depths=("rendered_depth", "depth")),
    "unrealstereo4k": GENERATED,
}


def plain_name(dataset: str) -> str:
    """The dataset a folder is of: `mpsd_subset_wai` and `mpsd_wai` hold `mpsd`."""
    return re.sub(r"(_subset)?_wai$", "", dataset)


def rules_of(dataset: str) -> DatasetRules:
    """The rules of a dataset's folder; `blendedmvs_wai` follows those of `blendedmvs`."""
    return RULES.get(dataset) or RULES.get(plain_name(dataset)) or DatasetRules()
