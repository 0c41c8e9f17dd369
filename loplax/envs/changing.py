"""Environments that change between episodes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from loplax.envs import base


@struct.dataclass
class ChangingState:
    """State of `Changing`.

    Attributes:
      inner: state of the inner environment.
      params: of the inner environment, as the current task has them.
      steps: taken in all, int32.
      task: index of the current task, int32.
    """

    inner: Any
    params: Any
    steps: jax.Array
    task: jax.Array


@struct.dataclass
class ChangingParams:
    """Parameters of `Changing`.

    Attributes:
      inner: of the inner environment, before any change.
      key: typed key of the sequence of tasks.
      period: steps of an environment per task.
    """

    inner: Any
    key: jax.Array
    period: int


class Changing(base.Wrapper):
    """A non-stationary version of an environment: a new task every ``period`` steps.

    Task ``k`` begins with the first episode after ``k`` periods; tasks follow one
    another, an episode each at least. Their inner parameters are
    ``change(jax.random.fold_in(params.key, task), task, params.inner)``, the first
    one's too. Environments with the same ``params.key`` go through the same tasks:
    share it among the environments of a run, and give every run its own. The index of
    the task of a transition is ``info["task"]``.

    Args:
      env: any gymnax environment.
      change: ``(key, task, params) -> params``, pure; ``task`` is traced. See
        `scaled`, `listed`, `permuted` and `shifted`.
      period: default of ``params.period``, at least 1.

    Raises:
      ValueError: for a period out of range, or a change that does not fit ``env``.

    Example:
      >>> import jax, gymnax
      >>> from loplax import envs
      >>> inner, _ = gymnax.make("CartPole-v1")
      >>> env = Changing(inner, envs.scaled(gravity=(0.5, 2.0)), period=10_000)
      >>> params = env.default_params.replace(key=jax.random.key(1))
      >>> obs, state = env.reset(jax.random.key(0), params)
      >>> obs.shape, int(state.task)
      ((4,), 0)
    """

    def __init__(
        self,
        env,
        change: Callable[[jax.Array, jax.Array, Any], Any],
        *,
        period: int,
    ):
        """Tries the change on the shapes of the default parameters."""
        super().__init__(env)
        if not period >= 1 or period % 1:
            raise ValueError(f"period must be whole and at least 1, got {period}.")
        self._change, self._period = change, int(period)
        first = jax.eval_shape(lambda: self._task(jnp.int32(0), self.default_params))
        plain = jax.eval_shape(lambda: env.default_params)
        if _form(first) != _form(plain):
            raise ValueError(f"change must return params like {plain}, got {first}.")

    def step_env(self, key, state, action, params):
        """One step of the inner environment, as the current task has it."""
        del params
        obs, inner, reward, terminated, info = self.inner.step_env(
            key, state.inner, action, state.params
        )
        info = {**info, "task": state.task}
        state = state.replace(inner=inner, steps=state.steps + 1)
        return obs, state, reward, terminated, info

    def reset_env(self, key, params):
        """Begins the first episode of the first task."""
        zero = jnp.int32(0)
        task_params = self._task(zero, params)
        obs, inner = self.inner.reset_env(key, task_params)
        return obs, ChangingState(inner, task_params, steps=zero, task=zero)

    def restart(self, key, state, params):
        """Begins the next episode, of the next task where the period is over."""
        task = jnp.minimum(state.task + 1, state.steps // params.period)
        task_params = self._task(task, params)
        obs, inner = self.restart_inner(key, state.inner, task_params)
        return obs, ChangingState(inner, task_params, state.steps, task)

    def is_truncated(self, state, params):
        """Whether the inner environment's time is up."""
        del params
        return self.inner.is_truncated(state.inner, state.params)

    def _task(self, task, params):
        key = jax.random.fold_in(params.key, task)
        return self._change(key, task, params.inner)

    @property
    def default_params(self) -> ChangingParams:
        """Those of the inner environment, and one sequence of tasks for all runs."""
        return ChangingParams(
            self.inner.default_params, jax.random.key(0), self._period
        )


def _form(params):
    """Structure, shapes and types of the leaves."""
    leaves, structure = jax.tree.flatten(params)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
