"""Programs that the tests of this folder share, and a finished toy study."""

import os

import jax
import pytest

from loplax.studies import runs
from tests.studies import toys


@pytest.fixture(scope="session", autouse=True)
def fast_disk():
    """Nobody pulls the plug while these tests run: nothing waits for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_programs():
    """The same learner is traced and compiled once for as many runs."""
    traced, made = {}, {}
    trace, compiled = runs.trace, runs.compiled

    def trace_once(each, rows, devices, key, data):
        leaves = [(x.shape, str(x.dtype)) for x in jax.tree.leaves(data)]
        place = (each.learner, each.about.method, *each.hparams, rows, *devices)
        place += tuple(leaves)
        if place not in traced:
            traced[place] = trace(each, rows, devices, key, data)
        return traced[place]

    def compile_once(program, options):
        if id(program) not in made:
            made[id(program)] = compiled(program, options)
        return made[id(program)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "trace", trace_once)
        patch.setattr(runs, "compiled", compile_once)
        yield


@pytest.fixture(scope="session")
def plain(shared_programs, tmp_path_factory):
    """The results of an uninterrupted study, and its directory."""
    directory = tmp_path_factory.mktemp("plain") / "study"
    return toys.study(directory), directory


@pytest.fixture
def contents():
    """``folder -> {file: bytes}``."""
    return lambda folder: {
        os.path.relpath(path, folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
