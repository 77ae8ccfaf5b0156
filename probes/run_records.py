"""The folder of a run: finished parts, each with the fingerprint of what it was computed from.

    records.jsonl           all records of the run, written last
    config.json             command, config, provenance
    sets.json               the view sets that were asked for
    parts/<key>/<scene>.jsonl    a header line, then the records of one scene of one encoder

A part is written whole, and used again while its fingerprint is the same; so an interrupted run goes on
where it stopped, and a later run computes only what is new.
"""

from __future__ import annotations

import json
import platform
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..configs.load import command_line, resolved
from ..errors import ProbeError, StrataError, first_few
from ..store.atomic import write_atomic, write_json
from ..store.view_sets import write_sets
from .base import Record

if TYPE_CHECKING:
    from ..configs.schema import CorrespondenceConfig
    from ..store.schema import ViewSet
    from ..store.selection import Selection


@dataclass(frozen=True, kw_only=True)
class Part:
    """Records of one scene of one encoder, or of a scene alone.

    Attributes:
        fingerprint: digest of everything they were computed from.
        records: in order.
        skipped: how many sets were left out, by reason.
    """

    fingerprint: str
    records: tuple[Record, ...]
    skipped: Counter[str] = field(default_factory=Counter)


def check_same_run(out: Path, encoders: Iterable[str], sets: Mapping[str, Sequence[ViewSet]]) -> None:
    """Refuse to replace results of another run: of encoders that are not asked for now, or of other sets.

    The same encoders with other options, and more encoders or sets, are the same run.

    Args:
        out: the folder of the run.
        encoders: `<encoder>@<key>` of those asked for.
        sets: those asked for, by scene.

    Raises:
        ProbeError: another run's results are there.
    """
    had = [record for record in _records_there(out) if record.encoder]
    asked, theirs = set(encoders), {f"{record.encoder}@{record.key}" for record in had}
    if others := sorted(theirs - asked):
        raise _another_run(out, f"of {first_few(others)}", f"of {first_few(sorted(asked))}")
    digests = {view_set.digest[:16] for some in sets.values() for view_set in some}
    scored = {record.set for record in had if record.set}
    if scored and not scored & digests:
        there = f"on sets {first_few(sorted(scored))}"
        raise _another_run(out, there, f"on sets {first_few(sorted(digests)) or 'none'}")


def _records_there(out: Path) -> list[Record]:
    try:
        return [Record.from_json(line) for line in (out / "records.jsonl").read_text("utf-8").splitlines()]
    except (FileNotFoundError, ValueError, TypeError):
        return []  # none, or damaged: nothing that could be lost


def _another_run(out: Path, there: str, asked: str) -> ProbeError:
    return ProbeError(
        "the folder holds the results of another run, which would be replaced.",
        where=out / "records.jsonl",
        why=f"it has results {there}; now asked: results {asked}",
        fix=f"write into another folder, as in out={out}_2 (`strata report` takes several), "
        "or ask for these too",
    )


def describe_run(
    out: Path,
    config: CorrespondenceConfig,
    sets: Mapping[str, Sequence[ViewSet]],
    selections: Sequence[Selection],
) -> None:
    """Write `config.json` and `sets.json`: what was asked, of which features, with which software.

    Raises:
        StoreError: the folder cannot be written.
    """
    provenance = {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy")},
        "platform": platform.platform(),
        "selections": {selection.stored_key.name: selection.fingerprint for selection in selections},
        "weights": {selection.key.id: _weights(selection) for selection in selections},
    }
    command = command_line("strata probe correspondence", config)
    document = {"command": command, "config": resolved(config), "provenance": provenance}
    write_json(out / "config.json", document)
    every_set = [view_set for scene in sorted(sets) for view_set in sets[scene]]
    write_sets(out / "sets.json", every_set, sampler={"taken_from": config.sets or config.store})


def _weights(selection: Selection) -> str:
    """Where an encoder's weights came from; `random:<seed>` makes it a floor.

    Derived features have those of their parents; they are random where all parents are.
    """
    if selection.key.derived is None:
        return selection.parts[0].provenance(selection.layers[0]).get("weights", "unknown")
    try:
        found = [_weights(selection.store.select(name)) for name in _parents(selection)]
    except StrataError:
        return "unknown"
    random = bool(found) and all(word.startswith("random") for word in found)
    return ",".join(found) if random else "derived"


def _parents(selection: Selection) -> list[str]:
    """Names of the stored keys it was derived from, or (of one not stored) those of its encoders by name."""
    derived = selection.key.derived or ""
    arguments = derived.partition("(")[2].rstrip(")").split(",")
    ids = set(arguments if derived.startswith("concat(") else arguments[:1])
    stored = selection.store.keys()
    found = [key.name for key in stored if key.key.id in ids]
    if len(found) == len(ids):
        return found
    roots = {re.sub(r"(-l2|-pca[0-9]+)+$", "", part) for part in selection.key.encoder.split("+")}
    plain = [key for key in stored if key.key.derived is None and key.key.encoder in roots]
    return [key.name for key in plain] if {key.key.encoder for key in plain} == roots else []


def part_path(out: Path, owner: str, scene: str) -> Path:
    """`out/parts/dinov2_base@8f31c2abcdef/eth3d%2Fcourtyard.jsonl`."""
    return out / "parts" / quote(owner, safe="@") / f"{quote(scene, safe='')}.jsonl"


def read_part(path: Path, fingerprint: str) -> Part | None:
    """The part, if it is there and was computed from the same."""
    if not path.is_file():
        return None
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        described = json.loads(header)
        if described["fingerprint"] != fingerprint:
            return None
        records = tuple(map(Record.from_json, lines))
        return Part(fingerprint=fingerprint, records=records, skipped=Counter(described["skipped"]))
    except (ValueError, TypeError, KeyError):
        return None  # damaged: computed again, like one that is not there


def write_part(path: Path, part: Part) -> None:
    """Write the part, so that it is whole or not there.

    Raises:
        StoreError: the folder cannot be written.
    """
    header = json.dumps({"fingerprint": part.fingerprint, "skipped": part.skipped}, ensure_ascii=False)
    write_atomic(path, _text([header, *(record.to_json() for record in part.records)]))


def write_records(out: Path, records: Iterable[Record]) -> None:
    """Write `out/records.jsonl`.

    Raises:
        StoreError: the folder cannot be written.
    """
    write_atomic(out / "records.jsonl", _text(record.to_json() for record in records))


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
