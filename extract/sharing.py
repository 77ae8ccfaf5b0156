"""Runs beside each other on one store: what this one leaves to the others, and what it says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..store.taken_units import TakenUnits, Unit
from ..store.writer import GroupWriter


class Sharing:
    """What a worker asks before it begins a unit, and before it writes one.

    Args:
        taken: the units of the run.
        note: called with a line for the user, once for each run beside this one.
    """

    def __init__(self, taken: TakenUnits, note: Callable[[str], None]) -> None:
        self._taken, self._note = taken, note
        self._noted: set[str] = set()

    def begin(self, units: Sequence[tuple[GroupWriter, int]]) -> list[bool]:
        """Of each unit, whether it is this run's to write: nobody is at it, and it is not there yet."""
        places = [_place(writer, unit) for writer, unit in units]
        mine = []
        for place, (writer, unit), run in zip(places, units, self._taken.take(places), strict=True):
            # In this order: who gives a unit back has written it.
            there = writer.has_unit(unit)
            if there:
                self._taken.give_back(place)
                self._say_written(place)
            elif run:
                self._say_taken(run)
            mine.append(not there and not run)
        return mine

    def written_by_another(self, writer: GroupWriter, unit: int) -> bool:
        """Whether a unit that is about to be written has come to be there since it was begun."""
        if not writer.has_unit(unit):
            return False
        self._say_written(_place(writer, unit))
        return True

    def end(self, writer: GroupWriter, unit: int) -> None:
        """A unit is on disk."""
        self._taken.give_back(_place(writer, unit))

    def _say_taken(self, run: str) -> None:
        self._say(run, f"run {run} is writing to the same store: units that it has begun are left to it")

    def _say_written(self, place: Unit) -> None:
        text = f"another run wrote unit {place[1]} of {place[0]} meanwhile: what others wrote stays as it is"
        self._say("", text)

    def _say(self, about: str, text: str) -> None:
        if about not in self._noted:
            self._noted.add(about)
            self._note(text)


def _place(writer: GroupWriter, unit: int) -> Unit:
    return writer.spec.folder, unit
