"""The files that a scene's document names: those that are there, and those that are missing."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import SceneError, counted, first_few
from .scene import Blob


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneFiles:
    """Files below one folder. Links are followed; paths that lead out of the folder are refused.

    Attributes:
        folder: what paths are relative to.
        missing: files that were asked for and are not there.
    """

    folder: Path
    missing: list[Path] = field(default_factory=list)

    def find(self, relative: Any, where: str) -> Path | None:
        """The file of that path; a missing one is noted and None.

        Raises:
            SceneError: it is not a path below the folder.
        """
        text = relative if isinstance(relative, str) else ""
        parts = PurePosixPath(text).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in text:
            raise SceneError(
                f"{relative!r} is not a path in the scene's folder.",
                where=where,
                why="paths are relative to the scene's folder and do not leave it",
                fix="move the file into the folder, or link it there",
            )
        path = self.folder / text
        if os.path.isfile(path):
            return path
        self.missing.append(path)
        return None

    def check_missing(self, scene_id: str) -> None:
        """Raises a `SceneError` that names the missing files, if there are any."""
        if self.missing:
            raise SceneError(
                f"{scene_id} lacks {counted(len(self.missing), 'file')}.",
                where=self.folder,
                why=f"missing: {first_few(path.relative_to(self.folder) for path in self.missing)}",
                fix="restore the files, or leave their frames out of the scene",
            )


def blob_of(path: Path) -> Blob:
    """The whole file as it is."""
    suffix = path.suffix.lower().lstrip(".")
    return Blob(suffix="jpg" if suffix == "jpeg" else suffix, path=path)
