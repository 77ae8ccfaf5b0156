"""Reading a scene as far as it goes: what could be read, and every fault on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from ...errors import SceneError
from .scene import Scene, SceneSource

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Inspection:
    """A scene without its unreadable parts, and the faults of those parts.

    Attributes:
        scene: None where not even its frames could be listed.
        faults: in the order they were met.
    """

    scene: Scene | None
    faults: tuple[SceneError, ...] = ()

    def require(self) -> Scene:
        """The scene, if it has no faults.

        Raises:
            SceneError: the first fault, with the number of the others.
        """
        if not self.faults:
            assert self.scene is not None
            return self.scene
        first, others = self.faults[0], len(self.faults) - 1
        if others:
            more = f"; `strata scenes check` lists {others:,} more faults"
            raise SceneError(first.what, where=first.where, why=first.why, fix=first.fix + more)
        raise first


@runtime_checkable
class Inspectable(Protocol):
    """A source that can say more than the first fault."""

    def inspect(self, scene_id: str) -> Inspection: ...


@dataclass
class Faults:
    """Collects faults, so that one broken part does not hide the next."""

    found: list[SceneError] = field(default_factory=list)

    def attempt(self, read: Callable[..., T], *args: object) -> T | None:
        """What `read` returns, or None with its fault kept."""
        try:
            return read(*args)
        except SceneError as fault:
            self.found.append(fault)
            return None


def inspect(source: SceneSource, scene_id: str) -> Inspection:
    """The scene of any source with all faults that the source can tell apart."""
    if isinstance(source, Inspectable):
        return source.inspect(scene_id)
    faults = Faults()
    return Inspection(scene=faults.attempt(source.scene, scene_id), faults=tuple(faults.found))
