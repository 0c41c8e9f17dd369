"""Draws the figures of a study of the stability gap.

python -m experiments.stability_gap.plot WORKDIR
"""

from experiments.figures import figures

FIGURE = figures.Figure(
    "test_accuracy",
    "test accuracy",
    "Stability gap",
    higher_is_better=True,
    about=lambda config: f"{config['dataset']}, {config['order']}",
)


if __name__ == "__main__":
    figures.main(FIGURE, __doc__)
