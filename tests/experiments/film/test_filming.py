"""Robots drawn from the side, and the film of an agent."""

import io
import os
import pathlib
import subprocess
import sys
import types

import ml_collections
import numpy as np
import pytest
from PIL import Image

from experiments.film import filming, skeletons
from experiments.studies import locomotion

QUARTER = np.sqrt([0.5, 0, 0.5, 0])  # turn about y: z becomes x, x becomes -z
ROOT = pathlib.Path(__file__).parents[3]


def model(**changes):
    """Ground, a sphere on the first link, and an upright capsule on the second."""
    fields = {
        "geom_type": [0, 2, 3],
        "geom_bodyid": [0, 1, 2],
        "geom_pos": [[0, 0, 0], [0, 0, 0.5], [1, 0, 0]],
        "geom_quat": [[1, 0, 0, 0]] * 3,
        "geom_size": [[40, 40, 40], [0.25, 0, 0], [0.1, 2, 0]],
    }
    arrays = {name: np.array(value) for name, value in (fields | changes).items()}
    return types.SimpleNamespace(**arrays)


def image(written):
    return np.asarray(Image.open(io.BytesIO(written)).convert("RGB"))


def moving(ends, depth, radius, frames=20, seconds=0.04):
    """A film of parts that move to the right by a metre in every frame."""
    place = np.arange(frames, dtype=float)
    ends = np.array(ends, float) + place[:, None, None, None] * [1, 0]
    depth = np.broadcast_to(depth, ends.shape[:2])
    return skeletons.Film(ends, depth, np.array(radius), place, seconds)


def test_the_ground_is_no_part_and_a_sphere_has_no_length():
    parts = skeletons.skeleton(model())
    np.testing.assert_array_equal(parts.link, [0, 1])
    np.testing.assert_array_equal(parts.radius, [0.25, 0.1])
    np.testing.assert_array_equal(parts.ends[0], [[0, 0, 0.5]] * 2)
    np.testing.assert_array_equal(parts.ends[1], [[1, 0, -2], [1, 0, 2]])


def test_parts_turn_with_their_link_and_by_themselves():
    turned = model(geom_quat=np.array([[1, 0, 0, 0], [1, 0, 0, 0], QUARTER]))
    lying = skeletons.skeleton(turned)
    np.testing.assert_allclose(lying.ends[1], [[-1, 0, 0], [3, 0, 0]], atol=1e-12)
    positions = np.array([[[0, 0, 1], [5, 0, 1]]])
    rotations = np.array([[[1, 0, 0, 0], QUARTER]])
    for parts, expected in (
        (skeletons.skeleton(model()), [[3, 0], [7, 0]]),
        (lying, [[5, 2], [5, -2]]),
    ):
        shown = skeletons.film(parts, positions, rotations, 0.04)
        np.testing.assert_allclose(shown.ends[0, 0], [[0, 1.5]] * 2, atol=1e-12)
        np.testing.assert_allclose(shown.ends[0, 1], expected, atol=1e-12)
        np.testing.assert_array_equal(shown.place, [0])


def test_parts_of_the_world_stay_where_they_are():
    rail = skeletons.skeleton(model(geom_bodyid=[0, 1, 0]))
    positions = np.array([[[0.0, 0, 1]], [[7, 0, 1]]])
    rotations = np.array([[QUARTER], [QUARTER]])
    shown = skeletons.film(rail, positions, rotations, 0.04)
    np.testing.assert_allclose(shown.ends[:, 1], [[[1, -2], [1, 2]]] * 2, atol=1e-12)
    np.testing.assert_array_equal(shown.place, [0, 7])


def test_depth_grows_away_from_the_viewer_and_with_the_link_in_a_plane():
    positions = np.array([[[0, 3, 0], [0, y, 0]] for y in (2, 3, 5)])
    rotations = np.broadcast_to([1, 0, 0, 0], (3, 2, 4))
    parts = skeletons.skeleton(model())
    shown = skeletons.film(parts, positions, rotations, 0.04)
    np.testing.assert_allclose(shown.depth[:, 1], [0, 1 / 3, 1], atol=1e-3)
    assert np.ptp(shown.depth[:, 0]) == 0  # the root's, wherever it goes
    flat = skeletons.film(parts, positions * [1, 0, 1], rotations, 0.04)
    np.testing.assert_array_equal(flat.depth, [[0, 1]] * 3)


def test_a_robot_of_brax_is_where_mujoco_has_it():
    envs, mujoco = pytest.importorskip("brax.envs"), pytest.importorskip("mujoco")
    model = envs.get_environment("hopper").sys
    robot, data = model.mj_model, mujoco.MjData(model.mj_model)
    data.qpos[:] = np.random.default_rng(0).uniform(-0.5, 0.5, robot.nq)
    mujoco.mj_forward(robot, data)
    shown = skeletons.film(
        skeletons.skeleton(model), data.xpos[None, 1:], data.xquat[None, 1:], 0.04
    )
    axis = data.geom_xmat[1:, 2::3] * robot.geom_size[1:, 1, None]  # but the ground's
    ends = np.stack([data.geom_xpos[1:] - axis, data.geom_xpos[1:] + axis], axis=1)
    np.testing.assert_allclose(shown.ends[0], ends[..., [0, 2]], atol=1e-6)


@pytest.mark.parametrize("ends", [[[1, 2], [4, 6]], [[1, 2], [1, 2]]])
def test_every_corner_of_an_outline_is_a_radius_from_the_axis(ends):
    ends = np.array(ends, float)
    corners = skeletons.outline(ends, 0.5)
    along = ends[1] - ends[0]
    share = (corners - ends[0]) @ along / max(along @ along, 1)
    nearest = ends[0] + share.clip(0, 1)[:, None] * along
    away = np.linalg.norm(corners - nearest, axis=1)
    np.testing.assert_allclose(away, 0.5)
    x, y = corners.T
    area = 0.5 * np.abs(x @ np.roll(y, 1) - y @ np.roll(x, 1))
    assert area == pytest.approx(np.linalg.norm(along) + np.pi / 4, rel=0.01)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_near_parts_hide_far_ones_and_are_darker(order):
    ends, depth, radius = np.full((2, 2, 2), [0, 1.0]), [0.0, 1.0], [0.3, 1]
    shown = moving(ends, np.take(depth, order), np.take(radius, order))
    seen = {tuple(pixel) for pixel in image(skeletons.strip(shown)).reshape(-1, 3)}
    near, far = (tuple(map(int, skeletons.SHADES(d, bytes=True)[:3])) for d in depth)
    assert {near, far, (255, 255, 255)} < seen
    assert sum(near) < sum(far)


def test_a_film_is_as_long_as_what_it_shows():
    shown = moving([[[0, 1.0], [0, 0.3]]], [0], [0.2], frames=7)
    with Image.open(io.BytesIO(skeletons.gif(shown))) as found:
        durations = []
        for frame in range(found.n_frames):
            found.seek(frame)
            durations.append(found.info["duration"])
    assert durations == [40] * 7


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"capsules and spheres.*\[0, 2, 5\]"):
        skeletons.skeleton(model(geom_type=[0, 2, 5]))


def test_an_agent_is_trained_and_filmed(tmp_path, quick_compile):
    pytest.importorskip("brax")
    config = locomotion.get_config("smoke", "inverted_pendulum")
    with config.unlocked():
        config.hidden, config.learning_rate = (4,), 0.1
    workdir = tmp_path / "new" / "film"
    after, before = filming.film(config, "bp", workdir, seconds=0.1)
    assert sorted(path.name for path in workdir.iterdir()) == ["film.gif", "strip.png"]
    for name in ("film.gif", "strip.png"):
        assert np.ptp(image((workdir / name).read_bytes())) > 100
    # Both episodes begin alike; a step that the pole does not fall is worth 1.
    np.testing.assert_array_equal(after.positions[0], before.positions[0])
    assert not np.array_equal(after.positions[-1], before.positions[-1])
    for episode in (after, before):
        steps = len(episode.positions)
        assert steps == len(episode.rotations) == len(episode.rewards)
        assert str(episode) == f"return {steps:,.1f} in {steps:,} steps"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_film_has_a_length(tmp_path, seconds):
    pytest.importorskip("brax")
    config = locomotion.get_config("smoke", "inverted_pendulum")
    with pytest.raises(ValueError, match="seconds must be positive"):
        filming.film(config, "bp", tmp_path / "film", seconds)
    assert not (tmp_path / "film").exists()


def test_a_study_without_an_environment_is_refused(tmp_path):
    with pytest.raises(ValueError, match="only brax's robots.* got None"):
        filming.film(ml_collections.ConfigDict(), "bp", tmp_path)


def test_the_program_refuses_environments_of_gymnax_in_one_line(tmp_path):
    config = "--config=experiments/nonstationary_control/config.py:smoke"
    ended = subprocess.run(
        [sys.executable, "-m", "experiments.film", config, f"--workdir={tmp_path}"],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: only brax's robots can be filmed (ant, ")
    assert line.endswith("got 'Acrobot-v1'.")
