"""Robots made of capsules and spheres, drawn from the side."""

import io
import pathlib
import tempfile
from typing import NamedTuple

import matplotlib.collections
import matplotlib.colors
import matplotlib.figure
import numpy as np
from matplotlib import animation
from scipy.spatial import transform

PLANE, SPHERE, CAPSULE = 0, 2, 3  # types of geoms, as MuJoCo numbers them
MOMENTS = 6  # of a strip
GROUND = 0.16  # of a picture's height
SHADES = matplotlib.colors.LinearSegmentedColormap.from_list(
    "shades", ["#12355b", "#3b78ae", "#b4cbe0"]
)  # from near to far


class Skeleton(NamedTuple):
    """The parts of a robot, capsules; a sphere is one without length.

    Attributes:
      link: index of the link to which a part is fixed, -1 for the world, ``[parts]``.
      ends: the ends of its axis, in the link's frame and metres, ``[parts, 2, 3]``.
      radius: in metres, ``[parts]``.
    """

    link: np.ndarray
    ends: np.ndarray
    radius: np.ndarray


class Film(NamedTuple):
    """Where the parts of a robot are over time, seen along +y.

    Attributes:
      ends: the ends of their axes, to the right and up, ``[frames, parts, 2, 2]``.
      depth: of their middles behind the robot, in [0, 1], ``[frames, parts]``.
      radius: of the parts, ``[parts]``.
      place: of the robot's root to the right, ``[frames]``.
      seconds: from one frame to the next.
    """

    ends: np.ndarray
    depth: np.ndarray
    radius: np.ndarray
    place: np.ndarray
    seconds: float


def skeleton(model) -> Skeleton:
    """The parts of a robot.

    Args:
      model: brax's ``System``.

    Returns:
      The skeleton.

    Raises:
      ValueError: if there is anything but capsules and spheres on its ground.
    """
    kind = np.asarray(model.geom_type)
    if not np.isin(kind, (PLANE, SPHERE, CAPSULE)).all():
        raise ValueError(
            "only robots made of capsules and spheres can be drawn, got geoms of "
            f"MuJoCo's types {sorted(set(kind.tolist()))}."
        )
    take = lambda name: np.asarray(getattr(model, name))[kind != PLANE]
    size = take("geom_size")
    half = np.where(take("geom_type") == CAPSULE, size[:, 1], 0)
    axis = half[:, None] * _matrices(take("geom_quat"))[:, :, 2]  # along its own z
    ends = take("geom_pos")[:, None] + np.stack([-axis, axis], axis=1)
    return Skeleton(take("geom_bodyid") - 1, ends, size[:, 0])


def film(
    parts: Skeleton, positions: np.ndarray, rotations: np.ndarray, seconds: float
) -> Film:
    """Follows the parts of a robot whose links move.

    Args:
      parts: the skeleton.
      positions: of the links in the world, the root first, ``[frames, links, 3]``.
      rotations: theirs, as quaternions (w, x, y, z), ``[frames, links, 4]``.
      seconds: from one frame to the next.

    Returns:
      The film.
    """
    # The world is the last link, so that -1 finds it.
    still = np.broadcast_to([0.0, 0, 0, 1, 0, 0, 0], (len(positions), 1, 7))
    links = np.concatenate([np.concatenate([positions, rotations], -1), still], 1)
    links = links[:, parts.link]
    turned = np.einsum("fpij,pej->fpei", _matrices(links[..., 3:]), parts.ends)
    ends = links[:, :, None, :3] + turned
    # Where all move in one plane, the later links count as the farther ones.
    depth = ends[..., 1].mean(axis=-1) - positions[:, :1, 1] + 1e-3 * parts.link
    depth = (depth - depth.min()) / np.ptp(depth).clip(1e-6)
    return Film(ends[..., [0, 2]], depth, parts.radius, positions[:, 0, 0], seconds)


def _matrices(quaternions: np.ndarray) -> np.ndarray:
    """Rotation matrices ``[..., 3, 3]`` of quaternions (w, x, y, z)."""
    flat = transform.Rotation.from_quat(quaternions.reshape(-1, 4), scalar_first=True)
    return flat.as_matrix().reshape(*quaternions.shape[:-1], 3, 3)


def gif(shown: Film) -> bytes:
    """The film in real time, as a GIF."""
    width, height = _window(shown)
    figure = matplotlib.figure.Figure(figsize=(4.8, 4.8 * height / width))
    axes = figure.add_axes((0, 0, 1, 1))
    # GIF counts hundredths of a second, and what is left over would be cut off.
    writer = animation.PillowWriter(fps=1 / (shown.seconds + 0.005))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "film.gif"  # the writer wants a path
        with writer.saving(figure, path, dpi=100):
            for frame in range(len(shown.ends)):
                axes.clear()
                _draw(axes, shown, frame)
                writer.grab_frame()
        return path.read_bytes()


def strip(shown: Film) -> bytes:
    """Moments of the film side by side, as a PNG."""
    width, height = _window(shown)
    figure = matplotlib.figure.Figure(figsize=(12, 12 / MOMENTS * height / width))
    figure.subplots_adjust(0, 0, 1, 1, wspace=0.04)
    # Not the very first, in which robots may still stick in the ground.
    frames = np.linspace(0, len(shown.ends) - 1, MOMENTS + 1)[1:].round().astype(int)
    for axes, frame in zip(figure.subplots(1, MOMENTS), frames, strict=True):
        _draw(axes, shown, frame)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=150)
    return written.getvalue()


def _window(shown: Film) -> tuple[float, float]:
    """Width and height that hold the robot and some ground in all frames."""
    radius = shown.radius[:, None]
    away = np.abs(shown.ends[..., 0] - shown.place[:, None, None]) + radius
    top = (shown.ends[..., 1] + radius).max()
    return 2.2 * away.max(), 1.3 * top / (1 - GROUND)


def _draw(axes, shown: Film, frame: int) -> None:
    (width, height), place = _window(shown), shown.place[frame]
    left, right = place - width / 2, place + width / 2
    axes.set(xlim=(left, right), ylim=(-GROUND * height, (1 - GROUND) * height))
    axes.set_axis_off()
    axes.axhspan(-height, 0, color="#f2f2f2", lw=0)
    for metre in range(int(left // 2) * 2, int(np.ceil(right)), 2):
        axes.axvspan(metre, metre + 1, 0, GROUND, color="#e2e2e2", lw=0)
    axes.axhline(0, color="#8a8a8a", lw=1.2)
    order = np.argsort(-shown.depth[frame], kind="stable")  # the farthest first
    capsules = matplotlib.collections.PolyCollection(
        [outline(shown.ends[frame, part], shown.radius[part]) for part in order],
        facecolors=SHADES(shown.depth[frame, order]),
        edgecolors="white",
        lw=0.8,
    )
    axes.add_collection(capsules)
    now = f"{frame * shown.seconds:.1f} s   {place - shown.place[0]:z.1f} m"
    axes.text(0.04, 0.95, now, transform=axes.transAxes, va="top", color="#555555")


def outline(ends: np.ndarray, radius: float) -> np.ndarray:
    """The outline of a capsule in a plane: half circles around its two ends.

    Args:
      ends: of its axis, ``[2, 2]``.
      radius: of the half circles.

    Returns:
      The corners of a polygon, ``[points, 2]``.
    """
    x, y = ends[1] - ends[0]
    half = np.linspace(-np.pi / 2, np.pi / 2, 17)
    angles = np.arctan2(y, x) + np.concatenate([half, half + np.pi])
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.repeat(ends[::-1], half.size, axis=0) + radius * circle
