"""What is drawn of the methods beside each other."""

import numpy as np
import pytest

from loplax.studies import comparisons, looks, panels
from tests.studies.drawing import look, study


@pytest.mark.filterwarnings("error")
def test_methods_are_compared_from_the_first_bin_with_a_value_to_the_last():
    dataset = study()
    dataset["loss"][:, :, 0] = np.nan
    dataset["loss"][0, :4, 1] = np.nan
    assert comparisons.ends(dataset, "loss") == (1, 3)
    assert comparisons.ends(study(bins=2), "loss") == (0, 1)
    assert comparisons.ends(study(bins=0), "loss") == (0, -1)
    _, (axes,) = panels.panels(1)
    comparisons.comparison(axes, dataset, "loss", look(dataset))
    mean = dataset["loss"].isel(bin=1).mean("seed")
    shown = [bars.lines[0].get_xdata()[0] for bars in axes.containers[::2]]
    np.testing.assert_allclose(shown, mean, rtol=1e-6)


def test_methods_are_compared_in_the_order_of_their_last_bins():
    """First bins hollow, last ones full, by name and in the colour of the method."""
    dataset = study()
    dataset["loss"][0] += 100
    own = look(dataset, labels={"bp": "backprop"})
    _, (axes, beside) = panels.panels(2)
    order = comparisons.comparison(axes, dataset, "loss", own)
    assert order == ["cbp", "linear", "bp"]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["cbp", "linear", "backprop"]
    for i, bars in enumerate(axes.containers):
        arm, place = order[i // 2], (0, -1)[i % 2]
        mean = dataset["loss"].sel(arm=arm).isel(bin=place).mean("seed")
        (shown,) = bars.lines[0].get_xdata()
        assert shown == pytest.approx(mean.item(), rel=1e-6)
        assert bars.lines[0].get_color() == own[arm].colour
    comparisons.against(beside, dataset, "loss", own, order)
    apart = dataset["loss"].isel(bin=-1).mean("seed")
    shown = [bars.lines[0].get_xdata()[0] for bars in beside.containers]
    expected = [(apart.sel(arm=arm) - apart[0]).item() for arm in order[:2]]
    np.testing.assert_allclose(shown, expected, rtol=1e-5)
    assert [text.get_text() for text in beside.texts] == ["100%", "100%"]


def test_settings_are_drawn_over_their_values():
    """Each method with its own; one that does not use the number is a level line."""
    swept = {"rate": [np.nan, 0.1, 0.01, 0.1, 0.01]}
    dataset = study(["bp", "cbp", "cbp", "l2", "l2"], swept)
    own = looks.assign({name: name for name in ("bp", "cbp", "l2")})
    _, (axes,) = panels.panels(1)
    comparisons.settings(axes, dataset, "loss", "rate", own)
    last = dataset["loss"].isel(bin=-1).mean("seed").values
    for container, arms in zip(axes.containers, ([2, 1], [4, 3]), strict=True):
        line = container.lines[0]
        np.testing.assert_array_equal(line.get_xdata(), [0.01, 0.1])
        np.testing.assert_allclose(line.get_ydata(), last[arms], rtol=1e-5)
    level = next(line for line in axes.lines if line.get_label() == "bp")
    np.testing.assert_allclose(level.get_ydata(), last[0], rtol=1e-5)
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "rate")
    ticks = [text.get_text() for text in axes.get_xticklabels(which="both")]
    assert ticks == ["0.01", "0.1"]


def test_settings_leave_out_methods_without_the_metric():
    dataset = study(["bp", "bp", "linear", "linear"], {"rate": [0.0, 1, 0, 1]})
    _, (axes,) = panels.panels(1)
    own = looks.assign({"bp": "bp", "linear": "linear"})
    comparisons.settings(axes, dataset, "dead", "rate", own)
    assert [container.get_label() for container in axes.containers] == ["bp"]
    assert axes.get_xscale() == "linear"  # a rate of 0 has no logarithm
