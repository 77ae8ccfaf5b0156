"""YAML files that come with Strata, by folder and name."""

from __future__ import annotations

from importlib import resources


def shipped(folder: str) -> tuple[str, ...]:
    """Names in `configs/<folder>`, in alphabetical order."""
    return tuple(sorted(f.name[:-5] for f in _folder(folder).iterdir() if f.name.endswith(".yaml")))


def shipped_text(folder: str, name: str) -> str:
    """The file of that name."""
    return _folder(folder).joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def _folder(name: str):
    return resources.files(__package__ or "").joinpath(name)
