"""Draws the figures of a study of Walker2d.

python -m experiments.walker.plot WORKDIR
"""

from experiments.figures import figures, words

FIGURE = figures.Figure(
    "return",
    "episode return",
    "Walker2d, PPO",
    higher_is_better=True,
    steps="environment steps",
    about=words.of_environment,
)


if __name__ == "__main__":
    figures.main(FIGURE, __doc__)
