"""What is told of a study while it runs: a bar, and functions that the user gives."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_SECONDS = 30.0  # between two lines where there is no terminal


class Progress(NamedTuple):
    """What is known after a segment of some runs of a method.

    Attributes:
      method: name of the method.
      step: examples that each of the runs has seen.
      metrics: mean of every metric over the runs and the bins of the segment, without
        values that are not finite; ``name/subset`` where it has one for each subset.
      unit: number of the runs that are computed together, in this study.
      runs: how many they are.
    """

    method: str
    step: float
    metrics: dict[str, float]
    unit: int
    runs: int


def means(
    metrics: Mapping[str, np.ndarray], subsets: Sequence[str]
) -> dict[str, float]:
    """Mean of every metric, and of each of its subsets.

    Args:
      metrics: the metrics, ``[runs, bins]`` or ``[runs, bins, subsets]``.
      subsets: names of the subsets.

    Returns:
      The means; NaN where no value is finite.

    Example:
      >>> means({"loss": np.array([[1.0, np.nan], [2.0, 3.0]])}, ())
      {'loss': 2.0}
    """
    single = {}
    for name, values in metrics.items():
        if values.ndim == 2:
            single[name] = values
            continue
        for subset, part in zip(subsets, np.moveaxis(values, 2, 0), strict=True):
            single[f"{name}/{subset}"] = part
    finite = {name: x[np.isfinite(x)].astype(float) for name, x in single.items()}
    return {name: float(x.mean()) if x.size else np.nan for name, x in finite.items()}


class _Lines:
    """A stream on which a bar becomes a line now and then."""

    def write(self, text: str) -> None:
        """Writes what is not blank as a line."""
        if text.strip():
            print(text.strip(), file=sys.stderr)

    def flush(self) -> None:
        """Flushes the stream."""
        sys.stderr.flush()


def bar(total: int, done: int, unit: str, shown: bool) -> Any:
    """A progress bar on stderr; lines where that is neither terminal nor notebook.

    Args:
      total: how much there is to do.
      done: how much was done before.
      unit: what is counted.
      shown: whether to show it.

    Returns:
      The bar, of tqdm.
    """
    if shown:  # in a notebook it looks for widgets, and warns if there are none
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    live = sys.stderr.isatty() or "ipykernel" in sys.modules
    how = {} if live else {"file": _Lines(), "mininterval": _SECONDS, "ncols": 100}
    return tqdm(
        total=total,
        initial=done,
        unit=unit,
        unit_scale=True,
        disable=not shown,
        **how,
    )


@contextlib.contextmanager
def standing(bar: Any) -> Iterator[None]:
    """What takes place within it counts as elapsed, but not for the bar's speed.

    Args:
      bar: the bar, of tqdm, which goes no further meanwhile.
    """
    begun = time.time()
    yield
    if not bar.disable:
        bar.last_print_t += time.time() - begun
