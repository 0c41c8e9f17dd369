"""How the documentation is built: ``sphinx-build -W --keep-going docs OUT``."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

import loplax  # noqa: E402, of the checkout that is documented

project = "loplax"
author = "the loplax authors"
release = version = loplax.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "pages",
]
# Pages of others include what is in these.
exclude_patterns = ["measured", "**/_*.md"]
html_theme = "furo"
html_title = "loplax"
html_static_path = ["_static"]
html_css_files = ["site.css"]

# Notebooks are shown with the outputs that they were committed with.
nb_execution_mode = "off"
myst_enable_extensions = ["attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

# A name in single backticks is a link to an object, and must exist if it is ours.
default_role = "py:obj"
nitpicky = True
nitpick_ignore = [("py:class", "ArrayTree")]  # what optax calls any tree of arrays
nitpick_ignore_regex = [("py:.*", r"(?!loplax|experiments)\w+(\.\w+)+")]  # others'
autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
