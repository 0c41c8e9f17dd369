"""What a study returns: its results, as tables and figures."""

import base64
import io
import os
from typing import NamedTuple

import matplotlib.figure
import xarray

from experiments.figures import figures, table
from experiments.launch import problems


class Outcome(NamedTuple):
    """The results of a study; a notebook shows them as a table and a figure.

    Attributes:
      dataset: all metrics, ``[arm, seed, bin]``; see ``loplax.studies.results.load``.
      problem: name of the problem.
      workdir: directory of the study, or ``None`` if it is in memory only.
    """

    dataset: xarray.Dataset
    problem: str
    workdir: str | os.PathLike | None = None

    @property
    def shown(self) -> figures.Figure:
        """The problem's metric, and how it is shown."""
        return problems.part(self.problem, "plot").FIGURE

    def table(self, baseline: str | None = None) -> str:
        """First and last bins of every arm, with differences to ``baseline``."""
        return table.text(self.dataset, self.shown, baseline)

    def to_dataframe(self):
        """All metrics, a row for every arm, seed and bin (and subset)."""
        return self.dataset.to_dataframe().reset_index()

    def figures(self) -> dict[str, matplotlib.figure.Figure]:
        """All figures by name; see ``experiments.figures.figures.draw``."""
        return figures.draw(self.dataset, self.shown)

    def figure(self) -> matplotlib.figure.Figure:
        """The main figure."""
        return figures.draw(self.dataset, self.shown, only="figure")["figure"]

    def save(self, folder: str | os.PathLike) -> list[str]:
        """Writes all figures into a folder; returns their paths."""
        return figures.save(self.figures(), folder)

    def __repr__(self):
        """The table."""
        return self.table()

    def _repr_html_(self):
        png = io.BytesIO()
        self.figure().savefig(png, format="png", dpi=100)
        data = base64.b64encode(png.getvalue()).decode()
        image = f'<img src="data:image/png;base64,{data}" alt="{self.problem}">'
        return f"{table.html(self.dataset, self.shown)}{image}"
