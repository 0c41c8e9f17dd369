"""The ant on a ground whose friction changes."""

from collections.abc import Sequence

from loplax.envs import brax, changes, changing


def slippery_ant(
    backend: str = "spring", frictions: Sequence[float] | None = None
) -> tuple[changing.Changing, changing.ChangingParams]:
    """Brax's ant; its friction changes every 2 million steps, at an episode's end.

    The friction is drawn log-uniformly from [0.02, 2]; the first task has the ant's
    own, 1. The changes follow a grid of steps, so that all environments and runs reach
    task ``k`` in the first episode that begins after ``k`` periods.

    Args:
      backend: of `Brax`.
      frictions: sliding friction between foot and ground per task, repeated when the
        list is over, instead of the drawn ones.

    Returns:
      ``(env, params)``, as ``gymnax.make`` does; give each run its own ``params.key``.

    Raises:
      ValueError: for a friction that is not positive or an unknown backend.
      ImportError: if brax is not installed.

    Example:
      >>> env, params = slippery_ant()  # doctest: +SKIP
      >>> params = params.replace(key=jax.random.key(7))  # doctest: +SKIP

    References:
      Dohare et al., Nature 632, 2024, figure 3.
    """
    if frictions is None:
        change = changes.scaled(friction=(0.02, 2.0))
    else:
        for friction in frictions:
            if not friction > 0:
                raise ValueError(f"frictions must be positive, got {frictions}.")
        change = changes.listed(friction=frictions)
    env = changing.Changing(brax.Brax("ant", backend), change, period=2_000_000)
    return env, env.default_params
