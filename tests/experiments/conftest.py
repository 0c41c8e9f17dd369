"""Configurations with other values, a finished study, and data without a download."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.launch import devices, running
from experiments.studies import pretraining
from loplax import nets
from loplax.streams import datasets
from loplax.studies import runs

jax.devices()  # else the first study in this process would make each core a device


def _changed(config, **changes):
    for name, value in changes.items():
        *path, last = name.split("__")
        inner = functools.reduce(getattr, path, config)
        with inner.ignore_type():
            inner[last] = value
    return config


@pytest.fixture(scope="session")
def changed():
    """``(config, a__b=value) -> config``, with another value for ``a.b``."""
    return _changed


def _launched(workdir, name, config, **how):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "devices", lambda platform: jax.devices()[:1])
        how = {"preset": "smoke", "progress": False} | how
        return running.launch(name, config, workdir, **how).dataset


@pytest.fixture(scope="session")
def launched():
    """``(workdir, experiment, config) -> results``, on one device."""
    return _launched


def _crashed(workdir, name, config, segments):
    left = [segments]

    def crash(progress):
        left[0] -= 1
        if not left[0]:
            raise RuntimeError("crash")

    with config.unlocked():
        config.checkpoint_seconds = 0.0
    with pytest.raises(RuntimeError, match="crash"):
        _launched(workdir, name, config, on_segment=[crash])


@pytest.fixture(scope="session")
def crashed():
    """``(workdir, experiment, config, segments)``: a study that ends after some."""
    return _crashed


@pytest.fixture(scope="module")
def sharing(quick_compile):
    """A module's studies share the program of a method and a number of runs."""
    traced, compiled, trace, build = {}, {}, runs.trace, runs.compiled

    def once(known, key, make):
        if key not in known:
            known[key] = make()
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            runs,
            "trace",
            lambda each, rows, *how: once(
                traced, (each.about.method, rows), lambda: trace(each, rows, *how)
            ),
        )
        patch.setattr(
            runs,
            "compiled",
            lambda program, options: once(
                compiled, id(program), lambda: build(program, options)
            ),
        )
        yield


@pytest.fixture(scope="session")
def small(changed):
    """``(a__b=value) -> config`` of slowly-changing regression, of a second."""
    from experiments.slowly_changing_regression import config as configs

    sizes = {
        "methods": ("bp", "linear"),
        "seeds": 2,
        "examples": 80,
        "bin": 20,
        "unroll": 1,
        "stream__period": 10,
    }
    return lambda **new: changed(configs.get_config("smoke"), **(sizes | new))


@pytest.fixture(scope="session")
def files():
    """``folder -> {path: bytes}`` of all that is in it."""
    return lambda folder: {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="session")
def finished(small, files, tmp_path_factory):
    """A finished study of two methods and two step sizes; the bytes of its files."""
    folder = tmp_path_factory.mktemp("finished") / "study"
    config = small(sweep__learning_rate=(0.01, 0.001))
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    _launched(folder, "slowly_changing_regression", config)
    jax.config.update("jax_disable_most_optimizations", before)
    return folder, files(folder)


# Of the thousand classes of small ImageNet four, of photographs a few.
SIZES = {  # classes, images of a class to learn from and to test on, shape
    "mnist": (10, 6_000, 1_000, (28, 28, 1)),
    "fashion_mnist": (10, 6_000, 1_000, (28, 28, 1)),
    "cifar100": (100, 500, 100, (32, 32, 3)),
    "imagenet32": (4, 700, 100, (32, 32, 3)),
    "imagenet2012": (1000, 1, 1, (224, 224, 3)),
    "places365_small": (365, 1, 1, (224, 224, 3)),
    "features.npz": (10, 100, 10, (512,)),
}
LOAD = datasets.load


def _black(name, data_dir=None, **how):
    if name not in SIZES:
        return LOAD(name, data_dir, **how)
    classes, *numbers, shape = SIZES[name]
    made = []
    for number in numbers:
        labels = np.arange(number * classes, dtype=np.int32) % classes
        made += [np.zeros((len(labels), *shape), np.uint8), labels]
    return datasets.Dataset(*made, classes)


@pytest.fixture
def black_images(monkeypatch, tmp_path):
    """Black images in the numbers and sizes of the sets that need a download.

    Nothing is learned from them before a study, and no feature is of interest.
    """
    monkeypatch.setattr(datasets, "load", _black)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    begin = lambda network, *_: network.init(jax.random.key(0))
    monkeypatch.setattr(pretraining, "_train", begin)

    def features(network, variables, images):
        one = jnp.zeros((1, *images.shape[1:]))
        shape = jax.eval_shape(network, variables, one).shape
        return np.zeros((len(images), *shape[1:]), np.float32)

    def weights(path, net):
        init = lambda: net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        return jax.tree.map(
            lambda x: np.zeros(x.shape, np.float32), jax.eval_shape(init)["params"]
        )

    monkeypatch.setattr(pretraining, "features", features)
    monkeypatch.setattr(nets, "convnext_from", weights)
