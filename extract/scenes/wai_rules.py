"""What a dataset asks for beyond the WAI format: one entry per dataset that asks for anything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DatasetRules:
    """The rules of one dataset.

    Attributes:
        masks: by the name they get, the modality that holds them; depth counts where all are on.
        version: raised when the rules change what a view's geometry is.
    """

    masks: tuple[tuple[str, str], ...] = ()
    version: int = 1


MOGE = (("moge2", "pred_mask/moge2"),)
RULES = {
    "blendedmvs": DatasetRules(masks=MOGE),
    "mpsd": DatasetRules(masks=MOGE),
}


def rules_of(dataset: str) -> DatasetRules:
    """The rules of a dataset folder; `blendedmvs_wai` follows those of `blendedmvs`."""
    return RULES.get(dataset) or RULES.get(dataset.partition("_")[0]) or DatasetRules()
