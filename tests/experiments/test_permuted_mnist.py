"""Online permuted MNIST: the published setting, a small study, and one that crashes.

Run as a program, this file is the small study, on all devices.
"""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import xarray

from experiments.launch import running
from experiments.permuted_mnist import config as configs
from experiments.permuted_mnist import study
from loplax.studies import checkpoints, results

pytestmark = pytest.mark.usefixtures("quick_compile")
NAME = "permuted_mnist"


TINY = {
    "methods": ("cbp",),
    "hidden": (4,),
    "tasks": 4,
    "period": 60,
    "probe": 20,
    "unroll": 1,
    "observe": ("weights", "features"),
    "cbp.maturity_threshold": 10,
    "cbp.replacement_rate": 0.1,
}


def small_config():
    """Of four tasks with 60 digits each."""
    config = configs.get_config("smoke")
    config.update_from_flattened_dict(TINY)
    return config


@pytest.fixture(scope="module")
def tiny(changed):
    """``(a__b=value) -> config``."""
    return lambda **new: changed(small_config(), **new)


def test_paper_is_the_published_setting(black_images):
    config = configs.get_config("paper")
    assert config.dataset == "mnist"
    assert (config.tasks, config.period, config.shift) == (800, 60_000, "abrupt")
    assert (config.hidden, config.activation) == ((2000, 2000, 2000), "relu")
    assert (config.optimizer, config.learning_rate) == ("sgd", 0.003)
    assert (config.seeds, config.probe) == (10, 2_000)
    assert config.cbp.to_dict() == {
        "replacement_rate": 1e-5,
        "maturity_threshold": 100,
        "decay_rate": 0.99,
        "utility": "adaptable_contribution",
        "budget": "eligible",
        "reset_inner": True,
    }
    assert config.l2.weight_decay in (1e-3, 1e-4, 1e-5)
    assert config.shrink_and_perturb.weight_decay == 1e-4
    assert config.shrink_and_perturb.perturb_scale in (1e-4, 1e-5, 1e-6)
    assert config.shrink_and_perturb.period == 1
    made = study.make(config)
    assert (made.bins, made.steps_per_bin) == (800, 60_000)
    assert made.batch == 1 and made.at_task == ()


def test_a_narrower_network_is_published_too():
    config = configs.get_config("width100")
    assert (config.hidden, config.tasks) == ((100, 100, 100), 150)
    assert (config.dataset, config.period, config.learning_rate) == (
        "mnist",
        60_000,
        0.003,
    )


@pytest.fixture(scope="module")
def whole(sharing, tiny, launched, tmp_path_factory):
    """The results of a study from its beginning to its end."""
    return launched(tmp_path_factory.mktemp("whole"), NAME, tiny())


def test_a_small_study_from_end_to_end(whole):
    found = whole
    assert list(found["step"].values) == [60, 120, 180, 240]
    assert not found["diverged"].any()
    for name in ("accuracy", "accuracy_fresh", "loss", "dead_1", "effective_rank"):
        assert np.isfinite(found[name]).all()
    accuracy = found["accuracy"]
    assert ((accuracy >= 0) & (accuracy <= 1)).all() and len(np.unique(accuracy)) > 2


def test_a_crashed_study_ends_with_the_same_numbers(
    whole, tiny, launched, crashed, tmp_path
):
    """It stops after two of four tasks, when units have been replaced, and goes on."""
    crashed(tmp_path, NAME, tiny(), segments=2)
    (_, saved) = checkpoints.of_units(tmp_path)
    assert checkpoints.check(saved).bin == 2
    assert len(np.unique(checkpoints.load(saved)[".opt.units['hidden_0'].age"])) > 1
    found = launched(tmp_path, NAME, tiny())
    xarray.testing.assert_identical(found, whole)
    assert not checkpoints.of_units(tmp_path)


def test_two_devices_give_the_same_numbers_as_one(whole, tmp_path):
    """Each has all of the images."""
    environment = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
    }
    ended = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "2 devices\n"
    xarray.testing.assert_allclose(results.load(tmp_path), whole, rtol=1e-4)


BAD = [
    ({"dataset": "minst"}, "'minst'.*mean 'mnist'"),
    ({"activation": "rely"}, "activation.*'rely'"),
    ({"hidden": (5, 0)}, "hidden"),
    ({"hidden": ()}, "no hidden layer"),
    ({"tasks": 0}, "tasks.*0"),
    ({"tasks": -1}, "tasks.*-1"),
    ({"period": 0}, "period.*0"),
    ({"period": -60}, "period.*-60"),
    ({"shift": "sudden"}, "shift.*'sudden'"),
    ({"probe": 0}, "probe.*0"),
    ({"optimizer": "sdg"}, "did you mean 'sgd'"),
    ({"sweep__learning_rate": (0.1, -1)}, "learning_rate.*-1"),
    ({"seeds": 0}, "seeds.*0"),
]


@pytest.mark.parametrize(("changes", "match"), BAD, ids=lambda x: str(x)[:50])
def test_bad_input_is_refused_before_anything_is_written(
    changes, match, tiny, launched, tmp_path
):
    with pytest.raises(ValueError, match=match):
        launched(tmp_path / "study", NAME, tiny(**changes))
    assert not (tmp_path / "study").exists()


if __name__ == "__main__":
    print(len(jax.devices()), "devices")
    running.launch(NAME, small_config(), sys.argv[1], preset="smoke", progress=False)
