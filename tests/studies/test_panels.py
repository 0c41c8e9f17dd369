"""Axes, titles and legends have their places."""

import numpy as np
import pytest

from loplax.studies import panels


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7])
def test_panels_have_room_for_what_is_around_them(number):
    """No label, title or legend leaves the figure or lies upon another."""
    names = [f"a method of number {i}" for i in range(9)]
    lines = ["A study of many words " * 5, "what else there is to say"]
    figure, axes = panels.panels(number, lines=lines, legend=names)
    assert len(axes) == len(figure.axes) == number
    for each in axes:
        each.plot(np.zeros([2, 9]), label=names)
        each.set(title="a title", xlabel="examples", ylabel="accuracy")
    panels.legend_below(figure, axes)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    parts = [*figure.texts, legend]
    boxes = [part.get_window_extent() for part in parts]
    boxes += [each.get_tightbbox() for each in axes]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_legends_beside_axes_lie_in_the_figure_in_the_order_of_the_lines():
    labels = ["low", "continual backprop cbp.replacement_rate=0.001 learning_rate=1"]
    margins = panels.Margins(right=panels.beside(labels))
    figure, (axes,) = panels.panels(1, margins=margins)
    for height, label in enumerate(labels):
        axes.plot([1, 2], [5, height], label=label)
    panels.legend_beside(axes)
    figure.draw_without_rendering()
    legend = axes.get_legend()
    texts = [" ".join(text.get_text().split()) for text in legend.get_texts()]
    assert texts == labels[::-1]
    box = legend.get_window_extent()
    assert axes.bbox.x1 <= box.x0 and box.x1 <= figure.bbox.x1
