"""Where a study runs: the devices, and how programs are compiled for them."""

import contextlib
import os
import pathlib

import jax
from absl import logging

PLATFORMS = ("auto", "cpu", "gpu", "tpu")


def devices(platform: str) -> list[jax.Device]:
    """Selects the platform; on CPU every core becomes a device.

    Compiled programs are kept in the user's cache, unless JAX's own settings say where
    or that they are not.

    Args:
      platform: one of ``PLATFORMS``; ``auto`` takes the best there is. If jax was used
        before, its devices stay as they are.

    Returns:
      The devices of this process.

    Raises:
      ValueError: if the platform is unknown or not there.
    """
    if platform not in PLATFORMS:
        raise ValueError(f"platform must be one of {PLATFORMS}, got {platform!r}.")
    logging.set_verbosity(logging.WARNING)  # jax reports every platform it tries
    keep_compiled()
    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count()
    with contextlib.suppress(RuntimeError):  # jax was used: its cores are one device
        jax.config.update("jax_num_cpu_devices", cores)
    if platform != "auto":
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(platform, platform))
    try:
        return jax.local_devices(backend=None if platform == "auto" else platform)
    except (RuntimeError, AssertionError) as error:  # jax asserts there is a default
        reason = (str(error) or "jax has no such device").splitlines()[0]
        raise ValueError(f"platform {platform!r} is not there: {reason}") from error


def keep_compiled() -> None:
    """Keeps compiled programs from run to run, where the user has not decided on it."""
    decided = "JAX_COMPILATION_CACHE_DIR" in os.environ
    if decided or jax.config.jax_compilation_cache_dir is not None:
        return
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home, "loplax")))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def compiler_options(device: jax.Device) -> dict[str, object]:
    """Options that make vmapped tiny networks fast, those that the compiler knows.

    On CPU, wide vectors pay, and library calls for sums within the loop do not.

    Args:
      device: one of the devices.

    Returns:
      The options, for ``jax.jit``.
    """
    known = {}
    if device.platform == "cpu":
        wanted = {
            "xla_cpu_prefer_vector_width": 512,
            "xla_cpu_experimental_ynn_fusion_type": "",
        }
        for name, value in wanted.items():
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                jax.jit(lambda x: x, compiler_options={name: value})(0.0)
                known[name] = value
    return known
