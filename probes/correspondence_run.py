"""The command `strata probe correspondence`: parts that are missing are computed, then put together.

What computes is imported when all words are found to be right, for importing torch takes seconds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ProbeError, SelectionError, StrataError, counted
from ..progress import Progress
from ..store.extract_command import extract_command
from ..store.feature_store import FeatureStore
from ..store.key import digest
from ..store.remote.path import Place
from ..store.view_sets import read_sets, sets_name
from .base import Record
from .correspondence_table import print_table
from .correspondence_words import protocol_names
from .layer_choice import Absent, check_layers, select_there, what_adds
from .run_records import Part, check_same_run, describe_run, part_path, read_part, write_part, write_records
from .set_pictures import paint_sets
from .set_views import NOT_TOGETHER, PlacedSet, place_sets

if TYPE_CHECKING:
    from rich.console import Console

    from ..configs.schema import CorrespondenceConfig
    from ..store.schema import ViewSet
    from ..store.selection import Selection
    from .correspondence import Correspondence

SCENES = "scenes"
"""The owner of parts that belong to a scene and to no encoder."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One part of the run: a scene of an encoder, or a scene alone.

    Attributes:
        path, fingerprint: of the part.
        scene, owner: scene id, and `<encoder>@<key>` or `SCENES`.
        sets: how many view sets it looks at.
        skipped: how many it cannot look at, by reason.
        compute: gives its records.
    """

    path: Path
    fingerprint: str
    scene: str
    owner: str
    sets: int
    skipped: Counter[str]
    compute: Callable[[], list[Record]]


class CorrespondenceRun:
    """One run of the command.

    Raises:
        StrataError: there is no store, no encoder, no set or no scene that fits the config.
    """

    def __init__(self, config: CorrespondenceConfig, console: Console) -> None:
        protocol_names(config)
        self.config, self.console, self.out = config, console, Path(config.out)
        self.store = FeatureStore.open(config.store)
        self.sets: dict[str, list[ViewSet]] = defaultdict(list)
        for view_set in read_sets(config.sets) if config.sets else _stored_sets(self.store, config):
            self.sets[view_set.scene].append(view_set)
        self.skipped: Counter[str] = Counter()
        self.absent: list[Absent] = []

    @cached_property
    def probe(self) -> Correspondence:
        """What is computed."""
        from .correspondence import Correspondence, protocols_of

        return Correspondence(self.sets, protocols_of(self.config), ranking=self.config.ranking)

    def run(self) -> int:
        """Compute what is missing, write records and pictures, print the table.

        The exit code is 1 where an encoder has layers that were asked for and the store does not.
        """
        asked = self._asked()
        selections = self._selections(asked)
        check_same_run(self.out, asked, self.sets)
        describe_run(self.out, self.config, self.sets, selections)
        jobs = self._jobs(selections)
        parts = {job.path: part for job in jobs if (part := read_part(job.path, job.fingerprint))}
        if parts:
            self._say(f"{len(parts):,} of {len(jobs):,} parts were there already")
        parts |= self._compute([job for job in jobs if job.path not in parts])
        records = [record for job in jobs if job.path in parts for record in parts[job.path].records]
        for part in parts.values():
            self.skipped.update(part.skipped)
        to_add = self._ways_to_add(selections)
        self._say_skipped()
        if not any(record.encoder for record in records):
            raise self._nothing_scored(to_add)
        for command in to_add:
            self._say(f"to add these sets: {command}")
        write_records(self.out, records)
        paint_sets(self.out, selections, self.sets, self.config.pictures, self._say)
        print_table(records, self.console, seed=self.config.seed, resamples=self.config.resamples)
        self._say(f"{counted(len(records), 'record')} in {self.out / 'records.jsonl'}")
        return self._say_absent()

    def _asked(self) -> list[str]:
        """`<encoder>@<key>` of those asked for, each once."""
        asked = [name.strip() for name in self.config.encoder.split(",")]
        stored = self.store.keys() if asked == ["all"] else [self.store.stored_key(name) for name in asked]
        return list(dict.fromkeys(key.name for key in stored))

    def _selections(self, asked: list[str]) -> list[Selection]:
        """One for each encoder that was asked for; what does not fit is said, unless nothing does."""
        found, problems = [], []
        where = {"scene": self.config.scene, "split": self.config.split}
        for name in asked:
            try:
                selection, absent = select_there(self.store, name, self.config.layers, **where)
            except StrataError as error:
                problems.append(error)
                self._say(f"{name} is left out: {error.what}")
            else:
                found += [selection] if selection is not None else []
                self.absent += absent
        check_layers(self.config.layers or (), self.store, found, self.absent)
        for absent in self.absent:
            self._say(str(absent))
        if not found:
            raise problems[0] if problems else _empty_store(self.store.root)
        return found

    def _jobs(self, selections: list[Selection]) -> list[Job]:
        """All parts of the run in their fixed order: encoders, scenes of each, then scenes alone."""
        scored, alone = [], {}
        for selection in selections:
            for scene in selection.scenes:
                part = selection.scene(scene)
                placed, skipped = place_sets(part, self.sets.get(scene, ()))
                if placed:
                    scored.append(self._score_job(part, placed, skipped))
                    alone.setdefault(scene, self._scene_job(part, placed))
                else:
                    self.skipped.update(skipped or {f"{scene} has no view sets": 1})
        return [*scored, *(alone[scene] for scene in sorted(alone))]

    def _score_job(self, part: Selection, placed: list[PlacedSet], skipped: Counter[str]) -> Job:
        owner, scene = part.stored_key.name, part.scenes[0]
        return Job(
            path=part_path(self.out, owner, scene),
            fingerprint=digest(self.probe.fingerprint(part)),
            scene=scene,
            owner=owner,
            sets=len(placed),
            skipped=skipped,
            compute=lambda: list(self.probe.evaluate(part)),
        )

    def _scene_job(self, part: Selection, placed: list[PlacedSet]) -> Job:
        from .correspondence import NUMERICS
        from .depth_check import depth_record

        scene = part.scenes[0]
        geometry = [[b.bundle.id, b.scene_row.geometry] for b in part.blocks()]
        patches = [part.stored_key.patch_size, *([part.key.stride] if part.key.stride else [])]
        pixels = [part.key.preprocess.to_dict(), *patches]
        sets = [one.view_set.to_dict() for one in placed]
        return Job(
            path=part_path(self.out, SCENES, scene),
            fingerprint=digest([NUMERICS, geometry, pixels, sets]),
            scene=scene,
            owner=SCENES,
            sets=0,
            skipped=Counter(),
            compute=lambda: [depth_record(part, placed)],
        )

    def _compute(self, jobs: list[Job]) -> dict[Path, Part]:
        made = {}
        with Progress(self.console, "correspondence", sum(job.sets for job in jobs), unit="sets") as progress:
            for job in jobs:
                try:
                    records = tuple(job.compute())
                except (SelectionError, ProbeError) as error:
                    fix = f" To fix: {error.fix}." if error.fix else ""
                    self.skipped[f"{job.scene} of {job.owner}: {error.what}{fix}"] += 1
                else:
                    part = Part(fingerprint=job.fingerprint, records=records, skipped=job.skipped)
                    write_part(job.path, part)
                    made[job.path] = part
                progress.advance(job.sets)
        return made

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _say_skipped(self) -> None:
        for reason, count in sorted(self.skipped.items()):
            self._say(f"skipped {count:,}: {reason}")

    def _say_absent(self) -> int:
        """What was asked for and could be there, again and with what adds it; the exit code."""
        left = [absent for absent in self.absent if absent.addable]
        for absent in left:
            self._say(f"{absent}; to add it:\n{what_adds(self.store, absent)}")
        return 1 if left else 0

    def _ways_to_add(self, selections: list[Selection]) -> list[str]:
        """The commands that extract the sets which encoders of whole sets have not seen."""
        sets = self.config.sets or str(self.out / "sets.json")
        return [
            extract_command(self.store, one.stored_key, sets=sets)
            for one in selections
            if one.key.context == "set"
            and (self.skipped[NOT_TOGETHER] or self.sets.keys().isdisjoint(one.scenes))
        ]

    def _nothing_scored(self, to_add: list[str]) -> ProbeError:
        return ProbeError(
            "no view set could be scored.",
            where=self.store.root,
            why="\n".join(sorted(self.skipped)) or "the selection and the sets share no scene",
            fix="\n".join(to_add)
            or "make sets of these scenes (`strata sets make`); they need depth and poses",
        )


def _stored_sets(store: FeatureStore, config: CorrespondenceConfig) -> list[ViewSet]:
    """The store's sets of the asked options; by default whichever the store has, if there is one choice."""
    asked = config.as_sampler()
    defaults = type(config)(store=config.store).as_sampler()
    names = store.set_names()
    only = len(names) == 1 and asked == defaults
    return store.view_sets(names[0] if only else sets_name(asked))


def _empty_store(root: Place) -> SelectionError:
    return SelectionError("the store has no features.", where=root, fix="extract some: `strata extract run`")
