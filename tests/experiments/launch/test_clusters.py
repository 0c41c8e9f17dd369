"""The scripts of docs/clusters.md, run as clusters run them: two processes each."""

import os
import pathlib
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
import yaml

from loplax.studies import results

ROOT = pathlib.Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "clusters.md").read_text()
STUDY = (
    "slowly_changing_regression.run --preset=smoke --config.methods=linear "
    "--config.seeds=2 --config.runs_per_block=1 --config.platform=cpu"
)
# A cluster starts as many tasks as the script asks for, here two on this machine.
SRUN = """#!/bin/bash
export SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2
SLURM_PROCID=1 SLURM_LOCALID=1 "$@" & other=$!
SLURM_PROCID=0 SLURM_LOCALID=0 "$@" && wait $other
"""


def script_with(language, word):
    """The script in which a word is."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.M | re.S)
    (block,) = [block for block in blocks if word in block]
    return block


def job(word):
    """The job of Kubernetes in which a word is: what its containers run."""
    *_, found = yaml.safe_load_all(script_with("yaml", word))
    pod = found["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert found["spec"]["completions"] == found["spec"]["parallelism"] == 8
    assert container["command"] == ["bash", "-c"]
    mounted = [each["name"] for each in container["volumeMounts"]]
    assert mounted == [each["name"] for each in pod["volumes"]]
    return container["args"][0]


def small(script, workdir):
    """The script with a small study, for two instead of eight."""
    script = re.sub(r"/?\bruns/mnist\b", str(workdir), script)
    script = script.replace("permuted_mnist.run --preset=paper", STUDY)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = script.replace("mnist-0.mnist:1234,8,", f"localhost:{port},2,")
    return re.sub(r"(--shard=.+)/8$", r"\1/2", script, flags=re.M)


def start(script, tmp_path, **variables):
    """Starts a script with variables that a cluster sets."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir(exist_ok=True)
    alone = "SLURM_ARRAY_TASK_ID" in variables
    srun.write_text('#!/bin/bash\nexec "$@"\n' if alone else SRUN)
    srun.chmod(0o755)
    path = [str(srun.parent), str(pathlib.Path(sys.executable).parent)]
    variables |= {"PATH": os.pathsep.join([*path, os.environ["PATH"]])}
    return subprocess.Popen(
        ["bash", "-c", script],
        cwd=ROOT,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(processes):
    texts = [each.communicate(timeout=300)[0] for each in processes]
    assert [each.returncode for each in processes] == [0] * len(processes), texts
    return texts


@pytest.mark.parametrize("cluster", ["slurm", "kubernetes"])
def test_an_array_is_computed_in_shards_and_merged(cluster, tmp_path):
    workdir = tmp_path / "study"
    if cluster == "slurm":
        script = script_with("bash", "--array")
        assert "#SBATCH --array=1-8\n" in script
        tasks = [{"SLURM_ARRAY_TASK_ID": number} for number in "12"]
    else:
        script = job("--shard")
        tasks = [{"JOB_COMPLETION_INDEX": number} for number in "01"]
    script = small(script, workdir)
    finish([start(script, tmp_path, **variables) for variables in tasks])
    (merge,) = re.findall(r'--wrap="(.*?)"', script_with("bash", "--wrap"), re.S)
    finish([start(small(merge, workdir), tmp_path)])
    found = results.load(workdir)
    assert found.sizes["seed"] == 2 and np.isfinite(found["loss"]).all()


@pytest.mark.parametrize("cluster", ["slurm", "kubernetes"])
def test_a_job_of_several_processes_computes_one_study(cluster, tmp_path):
    workdir = tmp_path / "study"
    if cluster == "slurm":
        script = small(script_with("bash", "--distributed=auto"), workdir)
        job_id = str(os.getpid())  # of which JAX makes the port
        processes = [start(script, tmp_path, SLURM_JOB_ID=job_id)]
    else:
        script = small(job("--distributed"), workdir)
        processes = [
            start(script, tmp_path, JOB_COMPLETION_INDEX=number) for number in "01"
        ]
    texts = finish(processes)
    assert "".join(texts).count("figures:") == 1
    found = results.load(workdir)
    assert found.sizes["seed"] == 2 and np.isfinite(found["loss"]).all()
    assert not (workdir / "shards").exists()
