"""COLMAP models of an analytic room, written by hand as text and as bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
from strata.extract.scenes.colmap import ColmapSource
from strata.extract.scenes.synthetic import SyntheticSource

ROOM = SyntheticSource(1, views=3, width=64, height=48).analytic("synthetic/room_0")
ID = "rooms/lounge"
# Model name -> id and parameters of fx, fy, cx, cy without distortion.
CAMERAS = {
    "SIMPLE_PINHOLE": (0, lambda fx, fy, cx, cy: (fx, cx, cy)),
    "PINHOLE": (1, lambda *K: K),
    "SIMPLE_RADIAL": (2, lambda fx, fy, cx, cy: (fx, cx, cy, 0)),
    "RADIAL": (3, lambda fx, fy, cx, cy: (fx, cx, cy, 0, 0)),
    "OPENCV": (4, lambda *K: (*K, 0, 0, 0, 0)),
    "OPENCV_FISHEYE": (5, lambda *K: (*K, 0, 0, 0, 0)),
    "FULL_OPENCV": (6, lambda *K: (*K, 0, 0, 0, 0, 0, 0, 0, 0)),
}
# Which points each image sees: 4 of the first's 5 are in the second, none in the third.
SEEN = ([1, 2, 3, 4, 5], [2, 3, 4, 5, 6, 7, 8, 9], [9])
SHARES = [[1, 0.8, 0], [0.5, 1, 0.125], [0, 1, 1]]


@dataclass
class Model:
    """What is written: by image name, and by id."""

    names: list = field(default_factory=lambda: ["a.png", "b.png", "c.png"])
    camera: str = "PINHOLE"
    params: dict = field(default_factory=dict)  # by image, in place of the room's
    seen: tuple = SEEN
    points: bool = True

    def parameters(self, i):
        K = ROOM.views[i].K_px
        exact = (K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5)
        return self.params.get(i, CAMERAS[self.camera][1](*map(float, exact)))

    def poses(self):
        for view in ROOM.views:
            cam_from_world = np.linalg.inv(view.world_from_cam)
            yield [*quaternion(cam_from_world[:3, :3]), *map(float, cam_from_world[:3, 3])]

    def tracks(self):
        for point in sorted({p for seen in self.seen for p in seen}):
            yield point, [(i + 1, seen.index(point)) for i, seen in enumerate(self.seen) if point in seen]


def quaternion(rotation):
    """wxyz, by the axis and angle of the rotation."""
    angle = np.arccos((np.trace(rotation) - 1) / 2)
    skew = rotation - rotation.T
    axis = np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
    axis /= np.linalg.norm(axis)
    return [float(np.cos(angle / 2)), *map(float, axis * np.sin(angle / 2))]


def write_text(folder, model):
    folder.mkdir(parents=True, exist_ok=True)
    cameras, images, points = "# Camera list\n", "# Image list\n# two lines\n\n", "# points\n"
    for i, pose in enumerate(model.poses()):
        numbers = " ".join(map(repr, model.parameters(i)))
        cameras += f"{i + 1} {model.camera} 64 48 {numbers}\n"
        images += f"{i + 1} {' '.join(map(repr, pose))} {i + 1} {model.names[i]}\n"
        images += " ".join(f"1.5 2.5 {point}" for point in (-1, *model.seen[i])) + "\n"
    for point, track in model.tracks():
        points += f"{point} 0 0 0 9 9 9 0.5 " + " ".join(f"{i} {k}" for i, k in track) + "\n"
    for name, text in (("cameras", cameras), ("images", images), ("points3D", points)):
        if name != "points3D" or model.points:
            (folder / f"{name}.txt").write_text(text)


def write_binary(folder, model):
    folder.mkdir(parents=True, exist_ok=True)
    cameras = images = struct.pack("<Q", 3)
    for i, pose in enumerate(model.poses()):
        numbers = model.parameters(i)
        cameras += struct.pack(f"<IiQQ{len(numbers)}d", i + 1, CAMERAS[model.camera][0], 64, 48, *numbers)
        images += struct.pack("<I7dI", i + 1, *pose, i + 1) + model.names[i].encode() + b"\0"
        images += struct.pack("<Q", len(model.seen[i]) + 1)
        for point in (-1, *model.seen[i]):
            images += struct.pack("<ddq", 1.5, 2.5, point)
    tracks = list(model.tracks())
    points = struct.pack("<Q", len(tracks))
    for point, track in tracks:
        points += struct.pack("<Q3d3BdQ", point, 0, 0, 0, 9, 9, 9, 0.5, len(track))
        points += b"".join(struct.pack("<II", *seen) for seen in track)
    for name, data in (("cameras", cameras), ("images", images), ("points3D", points)):
        if name != "points3D" or model.points:
            (folder / f"{name}.bin").write_bytes(data)


WRITERS = {"text": write_text, "binary": write_binary}


def read(folder):
    return ColmapSource(folder).scene(ID)
