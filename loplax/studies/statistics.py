"""What the runs of a study say together: means over seeds, and how sure they are."""

from collections.abc import Sequence

import numpy as np
import xarray
from scipy import stats

from loplax.studies import results


def summary(
    dataset: xarray.Dataset,
    metric: str,
    bins: Sequence[int] = (-1,),
    *,
    confidence: float = 0.95,
) -> xarray.Dataset:
    """Mean of a metric over the seeds, with a bootstrap interval of that mean.

    In every bin those runs count that have a value there and had not diverged by its
    end, whatever became of them later. The percentile bootstrap draws from a fixed
    seed: the same results give the same interval.

    Args:
      dataset: the results.
      metric: name of the metric.
      bins: indices of the bins; negative ones count from the end.
      confidence: probability that the interval is to cover, in (0, 1).

    Returns:
      A Dataset ``[arm, bin]`` or ``[arm, bin, subset]``: ``mean``, ``low`` and
      ``high`` (NaN with fewer than one and two runs), ``runs`` (how many count) and
      ``diverged`` (how many had by then); ``.to_dataframe()`` makes a table of it.

    Raises:
      ValueError: if there is no such metric or bin, or confidence is out of range.

    Example:
      >>> kinds = {"loss": (np.dtype("float32"), False)}
      >>> found = results.empty(["bp"], {}, range(2), [10.0], kinds)
      >>> every = (np.array([0, 0]), np.array([0, 1]))
      >>> results.record(found, every, 0, {"loss": np.array([[1.0], [3.0]])})
      >>> float(summary(found, "loss")["mean"].item())
      2.0
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must be between 0 and 1")
    if not all(-dataset.sizes["bin"] <= index < dataset.sizes["bin"] for index in bins):
        raise ValueError(f"bins {list(bins)}: there are {dataset.sizes['bin']} bins")
    chosen = dataset.isel(bin=list(bins))
    values = results.counting(chosen, metric)
    mean, low, high = xarray.apply_ufunc(
        lambda row: _mean_interval(row[~np.isnan(row)], confidence),
        values,
        input_core_dims=[["seed"]],
        output_core_dims=[[], [], []],
        vectorize=True,
    )
    runs = values.notnull().sum("seed")
    lost = chosen["diverged"] & (chosen["bins_sound"] <= chosen["bin"])
    diverged = lost.sum("seed").transpose("arm", "bin")
    found = {"mean": mean, "low": low, "high": high, "runs": runs, "diverged": diverged}
    return xarray.Dataset(found)


def _mean_interval(values: np.ndarray, confidence: float) -> tuple[float, ...]:
    """Mean of ``values [runs]`` and the two ends of its interval."""
    if values.size < 2:
        return (values.mean() if values.size else np.nan), np.nan, np.nan
    drawn = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        method="percentile",  # BCa is undefined where all runs agree
        rng=np.random.default_rng(0),
    )
    return values.mean(), *drawn.confidence_interval
