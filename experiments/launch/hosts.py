"""One study on many hosts, with ``jax.distributed`` and a directory that all share.

Runs do not depend on each other, so that the processes exchange no numbers: each is a
shard of the study, and computes on its own devices as it would alone. JAX tells them
who they are, and ends all of them if one is lost. The first process puts together what
the others leave in the directory.
"""

import contextlib
import faulthandler
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
from absl import logging
from jax._src import distributed  # its barrier waits without using the devices

from loplax.studies import merging, shards

_HEARTBEAT = 20  # seconds without a sign of life after which a process is lost
_FOREVER = 10**9  # milliseconds: the others may have much left to compute


def join(where: str) -> shards.Shard:
    """Joins the other processes; nothing may have used a device before.

    Args:
      where: ``auto`` where JAX knows the cluster (SLURM, Open MPI, Kubernetes, TPU
        pods), else ``ADDRESS:PORT,NUMBER,ID``: where process 0 listens, how many
        processes there are, and which this is, from 0.

    Returns:
      Which of the processes this is.

    Raises:
      ValueError: if that cannot be read, or the cluster is not known.

    Example:
      >>> join("localhost,2")
      Traceback (most recent call last):
      ValueError: distributed must be auto or ADDRESS:PORT,NUMBER,ID with an ID from
      0 to NUMBER - 1, got 'localhost,2'.
    """
    how = {} if where == "auto" else _explicit(where)
    logging.set_verbosity(logging.WARNING)  # jax reports how it connects
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM away
    faulthandler.disable()  # its dump would hide what JAX says of a lost process
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT, **how)
    except (ValueError, RuntimeError) as error:
        hint = "" if how else "; if JAX knows no cluster here: ADDRESS:PORT,NUMBER,ID"
        raise ValueError(
            f"the processes do not find each other: {error}{hint}"
        ) from error
    number, of = (
        distributed.global_state.process_id,
        distributed.global_state.num_processes,
    )
    return shards.Shard(number + 1, of)


def _explicit(where: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        address, *numbers = where.split(",")
        of, number = map(int, numbers)
        if 0 <= number < of and address.rpartition(":")[2].isdigit():
            return {
                "coordinator_address": address,
                "num_processes": of,
                "process_id": number,
            }
    raise ValueError(
        "distributed must be auto or ADDRESS:PORT,NUMBER,ID with an ID from 0 to "
        f"NUMBER - 1, got {where!r}."
    )


def run(
    workdir: pathlib.Path,
    shard: shards.Shard,
    compute: Callable[[shards.Shard | None], Any],
) -> Any:
    """Computes a study with all processes, or goes on with it.

    Args:
      workdir: the study's directory, which all of them see.
      shard: which of the processes this is.
      compute: computes a shard of the study, or all of it.

    Returns:
      In the first process what ``compute`` returns for all of it, else ``None``.

    Raises:
      ValueError: if something cannot be run.
    """
    first = shard.number == 1
    if first:  # also what other numbers of processes have left
        merging.gather(workdir)
        shards.divide(workdir, shard.of)
    _wait("begun")
    if (workdir / "study.json").exists():
        merging.merge(shards.folder(workdir, shard), [workdir])
    compute(shard)
    _wait("computed")
    if first:
        merging.gather(workdir)
    return compute(None) if first else None


def _wait(for_what: str) -> None:
    """Waits for all processes."""
    try:
        distributed.global_state.client.wait_at_barrier(for_what, _FOREVER)
    except jax.errors.JaxRuntimeError as error:
        raise ConnectionError(
            "another task died: what is finished is saved, and the same command goes "
            f"on from there ({str(error).splitlines()[0]})"
        ) from error


@contextlib.contextmanager
def ends_alone() -> Iterator[None]:
    """Ends this process where it fails, without waiting for others as JAX does."""
    try:
        yield
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
        if code:
            os._exit(code)
        raise
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
