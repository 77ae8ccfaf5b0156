"""What `strata scenes check` found out about a scene, as values and as text."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import SceneError, counted
from .check_picture import scene_picture
from .diagnose import Diagnosis
from .scene import Scene


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong with a scene, in the four parts of an error."""

    scene: str
    what: str
    where: str = ""
    why: str = ""
    fix: str = ""

    @classmethod
    def of(cls, scene: str, error: SceneError) -> Fault:
        return cls(scene=scene, what=error.what, where=error.where, why=error.why, fix=error.fix)

    def __str__(self) -> str:
        return str(SceneError(self.what, where=self.where, why=self.why, fix=self.fix))


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found out about a scene.

    Attributes:
        scene: its id.
        views: how many could be read.
        faults: everything that is wrong.
        hints: what may be wrong and cannot be measured.
        depth_agreement: see `scene_agreement`; None where it could not be measured.
        lacking: by command, what the scene lacks for it; empty = nothing.
    """

    scene: str
    views: int
    faults: tuple[Fault, ...]
    depth_agreement: float | None
    lacking: dict[str, str]
    hints: tuple[str, ...] = ()

    @property
    def agrees(self) -> str:
        agreement = self.depth_agreement
        return "not measured" if agreement is None else f"{agreement:.1%} of covisible depth"

    @property
    def uses(self) -> str:
        return ", ".join(name for name, lack in self.lacking.items() if not lack) or "nothing"

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.scene}: {counted(self.views, 'view')}, {counted(len(self.faults), 'fault')}",
                f"  agrees   {self.agrees}",
                f"  good for {self.uses}",
                *(f"  not for  {name}: no {lack}" for name, lack in self.lacking.items() if lack),
                *(f"  hint     {hint}" for hint in self.hints),
                *(f"- {fault}" for fault in self.faults),
            ]
        )


@dataclass(frozen=True, kw_only=True)
class Section:
    """A scene's part of the page: its report, what was measured, a WebP picture."""

    report: Report
    diagnosis: Diagnosis
    picture: bytes | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Examination:
    """A report with the scene it is about.

    Attributes:
        scene: without its unreadable parts; None where nothing could be read.
        diagnosis: of its geometry.
        doubles: indices of views that repeat an earlier one.
    """

    report: Report
    scene: Scene | None
    diagnosis: Diagnosis = field(default_factory=Diagnosis)
    doubles: tuple[int, ...] = ()

    def section(self, views: int) -> Section:
        """For the page, with a picture of at most so many views."""
        drawn = scene_picture(self.scene, views) if self.scene is not None and len(self.scene) else None
        return Section(report=self.report, diagnosis=self.diagnosis, picture=drawn)
