"""`strata probe` and `strata train`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..configs.schema import CorrespondenceConfig, TrainVGGTConfig
from .command import group, words_command

if TYPE_CHECKING:
    from rich.console import Console

probe = group("Measure stored features.")
train = group("Train on scenes or on stored features.")


@words_command(
    probe, "correspondence", CorrespondenceConfig, "strata probe correspondence store=feats.zarr", echo=True
)
def probe_correspondence(config: CorrespondenceConfig, console: Console) -> int:
    """Score multiview correspondence of stored features."""
    from ..probes.correspondence_run import CorrespondenceRun

    return CorrespondenceRun(config, console).run()


@words_command(
    train,
    "vggt",
    TrainVGGTConfig,
    "strata train vggt --preset train_vggt scenes=data/wai encoder=dinov3_base out=runs/vggt",
    echo=True,
)
def train_vggt(config: TrainVGGTConfig, console: Console) -> int:
    """Fine-tune VGGT, with any encoder inside, from images or from stored tokens. Run it again to resume."""
    from ..train.vggt_words import check_words

    check_words(config)  # before torch is imported, which takes seconds
    from ..train.vggt_command import run

    return run(config, console)
