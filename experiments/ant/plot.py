"""Draws the figures of a study of Ant.

python -m experiments.ant.plot WORKDIR
"""

from experiments.figures import figures

FIGURE = figures.Figure(
    "return",
    "episode return",
    "Ant, PPO",
    higher_is_better=True,
    steps="environment steps",
)


if __name__ == "__main__":
    figures.main(FIGURE, __doc__)
