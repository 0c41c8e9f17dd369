"""A process that dies at any of its file operations; the next one ends as if not."""

import os
import shutil
import threading

import pytest
import xarray

from loplax.studies import results
from tests.studies import toys

OPERATIONS = ("open", "replace", "unlink", "mkdir", "fsync", "ftruncate", "pwrite")
WALK = {"walk": toys.WALK}


class Killed(BaseException):
    """As good as SIGKILL: nothing of the process reaches the disk any more."""


class Death:
    """Kills this thread's process at its n-th file operation, and counts them."""

    def __init__(self, patch, at):
        self.at, self.count, self.thread = at, 0, threading.current_thread()
        for name in OPERATIONS:
            patch.setattr(os, name, self.dying(name, getattr(os, name)))

    def dying(self, name, operation):
        def operate(*args, **kwargs):
            if threading.current_thread() is not self.thread:
                return operation(*args, **kwargs)
            self.count += 1
            if name == "fsync" and self.count == self.at:
                tear(args[0])
            if self.count >= self.at:
                raise Killed
            return operation(*args, **kwargs)

        return operate


def tear(descriptor, truncate=os.ftruncate):
    """Half of what was written has reached the disk."""
    if os.path.isfile(f"/proc/self/fd/{descriptor}"):
        truncate(descriptor, os.fstat(descriptor).st_size // 2)


def study(directory, **changes):
    asked = {"settings": {}, "num_seeds": 2, "num_segments": 2, "runs_per_block": 1}
    return toys.study(directory, WALK, **(asked | {"checkpoint_seconds": 0} | changes))


# What there is before, and what is asked for then.
KINDS = {
    "new": (None, {}),
    "longer": ({"num_segments": 1, "num_seeds": 1, "keep_states": True}, {}),
    "kept": ({"num_seeds": 1}, {"keep_states": True}),
    "overwritten": ({"num_segments": 1, "num_seeds": 1}, {"overwrite": True}),
}


@pytest.fixture(scope="module")
def before(shared_programs, tmp_path_factory):
    """The folders in which the kinds of study begin, and how all of them end."""
    folder = tmp_path_factory.mktemp("before")
    for kind, (first, _) in KINDS.items():
        if first:
            study(folder / kind, **first)
    return folder, study(None)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_anywhere_it_ends_with_the_same_bits(tmp_path, before, kind):
    """At every file operation, in turn, until it is none of them."""
    site, expected = before
    _, asked = KINDS[kind]
    again = {} if "overwrite" in asked else asked
    at, alive = 0, False
    while not alive:
        at += 1
        directory = tmp_path / str(at)
        if (site / kind).exists():
            shutil.copytree(site / kind, directory)
        with pytest.MonkeyPatch.context() as patch:
            Death(patch, at)
            try:
                study(directory, **asked)
                alive = True
            except Killed:
                pass
        xarray.testing.assert_identical(study(directory, **again), expected)
        if again is asked:
            xarray.testing.assert_identical(results.load(directory), expected)
        left = [name for _, _, files in os.walk(directory) for name in files]
        assert not [name for name in left if name.endswith((".tmp", "lock"))]
        shutil.rmtree(directory)
    assert at > 20
