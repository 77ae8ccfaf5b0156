"""Words such as `encoder.*:0.1`: a glob over names, and a number for what fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..errors import ConfigError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A number for the names that fit a glob."""

    glob: str
    value: float

    def fits(self, name: str) -> bool:
        return fnmatchcase(name, self.glob)


def rules(option: str, words: Sequence[str], names: Iterable[str]) -> list[Rule]:
    """The rules that `words` state, each of which fits one of the names.

    Args:
        option: whose words they are, for errors.
        words: `<glob>:<number>`, the number not negative.

    Raises:
        ConfigError: a word has another form, or fits no name.
    """
    found = [_rule(option, word) for word in words]
    must_fit(option, [rule.glob for rule in found], names)
    return found


def must_fit(option: str, globs: Sequence[str], names: Iterable[str]) -> None:
    """Check that each glob fits one of the names.

    Raises:
        ConfigError: one does not.
    """
    known = list(names)
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in known):
            raise ConfigError(
                f"{option}={glob} fits nothing.",
                where=option,
                why=f"none of {len(known):,} names fits; * stands for any text, dots included",
                fix=did_you_mean(glob.strip("*."), known),
            )


def first_fit(found: Sequence[Rule], name: str) -> Rule | None:
    """The first rule that fits the name."""
    return next((rule for rule in found if rule.fits(name)), None)


def _rule(option: str, word: str) -> Rule:
    glob, _, number = word.rpartition(":")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not glob or not 0 <= value < float("inf"):
        raise ConfigError(
            f"{option}={word} is not of the form <glob>:<number>.",
            where=option,
            why="a number that is not negative stands behind the last colon",
            fix=f"write {option}={glob or word}:1.0",
        )
    return Rule(glob=glob, value=value)
