"""Several processes that compute one study, and one of them that is lost."""

import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.launch import hosts
from loplax.studies import results

ROOT = pathlib.Path(__file__).parents[3]
STUDY = ["--preset=smoke", "--config.methods=linear", "--config.seeds=4"]
STUDY += ["--config.runs_per_block=1", "--config.checkpoint_seconds=0"]
STUDY += ["--config.examples=400000", "--config.bin=1000", "--config.platform=cpu"]


def started(workdir, of, *more):
    """Starts as many processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    where = [f"--distributed=localhost:{port},{of},{i}" for i in range(of)]
    program = [sys.executable, "-m", "experiments.slowly_changing_regression.run"]
    return [
        subprocess.Popen(
            [*program, *STUDY, *more, each, f"--workdir={workdir}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in where
    ]


def ended(processes):
    """The codes and texts with which processes end."""
    texts = ["".join(each.communicate(timeout=200)) for each in processes]
    return [each.returncode for each in processes], texts


def test_a_lost_process_ends_the_others_and_nothing_is_lost(tmp_path):
    """Another number of processes goes on, and leaves a study as any other."""
    first, second = started(tmp_path, 2)
    place = tmp_path / "shards" / "2-of-2"
    while not list(place.glob("states/*")):
        assert second.poll() is None, ended([first, second])
        time.sleep(0.05)
    second.kill()
    killed = time.monotonic()
    (code, _), (text, _) = ended([first, second])
    assert time.monotonic() - killed < 60
    assert code != 0 and "another task died" in text
    assert results.load(place)["bins_done"].any()

    (code, text) = ended(started(tmp_path, 1))
    assert code == [0], text
    assert "linear" in text[0] and "figures:" in text[0]
    names = {path.name for path in tmp_path.iterdir()}
    assert "shards" not in names and {"study.json", "figure.png"} <= names
    found = results.load(tmp_path)
    assert (found["bins_done"] == 400).all() and not list(tmp_path.glob("states/*"))
    assert np.isfinite(found["loss"]).all()


@pytest.mark.parametrize("where", ["", "cluster", "localhost,2,0", "localhost:1,2,2"])
def test_what_is_no_place_is_refused(where):
    with pytest.raises(ValueError, match="ADDRESS:PORT,NUMBER,ID"):
        hosts.join(where)
