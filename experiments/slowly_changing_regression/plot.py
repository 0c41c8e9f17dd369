"""Draws the figures of a study of slowly-changing regression.

python -m experiments.slowly_changing_regression.plot WORKDIR
"""

from experiments.figures import figures

FIGURE = figures.Figure(
    "loss",
    "squared error, online",
    "Slowly-changing regression",
    about=lambda config: (
        f"{config['stream']['slow']} of {config['stream']['inputs']} bits change "
        f"every {config['stream']['period']:,} examples"
    ),
)


if __name__ == "__main__":
    figures.main(FIGURE, __doc__)
