"""`strata reconstruct`: wrong words are refused before the network is imported, which takes seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .jobs import jobs_of

if TYPE_CHECKING:
    from rich.console import Console

    from ...configs.schema import ReconstructConfig


def reconstruct(config: ReconstructConfig, console: Console) -> int:
    """Write a folder for each scene; 1 when some could not be reconstructed, else 0.

    Raises:
        ConfigError: a word is wrong.
        SceneError: there are no scenes or images.
        EncoderError: the model cannot be had.
        StoreError: a folder cannot be written.
    """
    jobs = jobs_of(config)
    from ...extract.run import resolve_device
    from .network import open_network
    from .run import ReconstructRun

    network = open_network(config.model, device=resolve_device(config.device), compute=config.compute)
    return ReconstructRun(config, network, console).run(jobs)
