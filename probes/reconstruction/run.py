"""One run of `strata reconstruct`: every scene that is not done yet, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...configs.load import command_line, resolved
from ...errors import EncoderError, SceneError, SetsError, StrataError
from ...extract.commit import device_name, provenance
from ...progress import Progress
from ...store.key import digest
from .frames import read_frames
from .fuse import fuse
from .jobs import Job
from .network import UNIT, Network
from .outputs import finished, write_reconstruction
from .truth import score, scores_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ...configs.schema import ReconstructConfig
    from ...extract.scenes.scene import View

NUMERICS = 1
"""Version of the arithmetic and of the files, raised when results change: they are made again."""
RANDOM = "random weights: cameras, depth and points mean nothing, and only show that everything works"


class ReconstructRun:
    """One run of the command with a model that is open."""

    def __init__(self, config: ReconstructConfig, network: Network, console: Console) -> None:
        self.config, self.network, self.console = config, network, console
        self.size = config.size or network.image_size
        self.made = self.kept = 0
        self.faults: list[tuple[str, StrataError]] = []

    def run(self, jobs: Sequence[Job]) -> int:
        """All jobs; the exit code."""
        if self.network.random:
            self._say(RANDOM)
        with Progress(self.console, "reconstruct", len(jobs), unit="scenes") as progress:
            for job in jobs:
                progress.note(self._attempt(job))
                progress.advance(1)
        self._say(
            f"{self.made:,} reconstructed, {self.kept:,} were there, {len(self.faults):,} left out; "
            f"in {self.config.out}"
        )
        return 1 if self.faults else 0

    def _attempt(self, job: Job) -> str:
        """What became of a job. A fault of one scene keeps no other from being done."""
        try:
            views = job.views(self.config.views)
            fingerprint = self._fingerprint(views)
            if record := finished(job.folder, fingerprint):
                self.kept += 1
                return f"{job.name}: was there, {_summary(record, job.folder)}"
            record = self._make(job, views, fingerprint)
            self.made += 1
            return f"{job.name}: {_summary(record, job.folder)}"
        except (SceneError, SetsError, EncoderError) as error:
            self.faults.append((job.name, error))
            return f"{job.name} is left out: {error}"

    def _make(self, job: Job, views: Sequence[View], fingerprint: str) -> dict[str, Any]:
        config, network = self.config, self.network
        frames = read_frames(views, size=self.size, patch=network.patch_size, fit=config.fit)
        prediction = network.predict(frames)
        cloud = fuse(prediction, source=config.points, drop_percent=config.conf).thinned(config.max_points)
        scores = score(prediction, views)
        random = [RANDOM] if network.random else []
        notes = [*random, f"{network.weights}, {self.size} px", *prediction.notes, *scores_text(scores)]
        return write_reconstruction(
            job.folder,
            prediction,
            cloud,
            title=job.name,
            unit=UNIT,
            notes=notes,
            record={
                "fingerprint": fingerprint,
                "scene": job.scene,
                "scores": scores,
                "notes": [*random, *prediction.notes],
                "command": command_line("strata reconstruct", config),
                "config": resolved(config),
                "provenance": self._provenance(),
            },
        )

    def _fingerprint(self, views: Sequence[View]) -> str:
        """Of everything the files depend on."""
        config = self.config
        words = [self.size, config.fit, config.points, config.conf, config.max_points]
        seen = [[view.name, view.image_digest, view.geometry_digest(None, 1)] for view in views]
        return digest([NUMERICS, self.network.digest, self.network.compute, words, seen])

    def _provenance(self) -> dict[str, Any]:
        network = self.network
        return {
            **provenance(device_name(network.device), network.weights),
            "compute": network.compute,
            "weights_digest": network.digest,
            "weights_random": network.random,
        }

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _summary(record: dict[str, Any], folder: Path) -> str:
    """`16 views, 812,344 points, AUC@30 0.91; recon/eth3d/courtyard/viewer.html`."""
    counted = [f"{record['views']:,} views", f"{record['points']:,} points", *scores_text(record["scores"])]
    left_out = "".join(f"; {name} is left out: {why}" for name, why in record["left_out"].items())
    return f"{', '.join(counted)}; {folder / 'viewer.html'}{left_out}"
