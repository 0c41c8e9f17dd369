"""Imports point one way, and flax stays where networks are defined."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
STUDIES = ROOT / "loplax" / "studies"
LIBRARY = sorted((ROOT / "loplax").rglob("*.py"))

# What each part of loplax may import of the rest of it.
ALLOWED = {
    "branch": {"sharding"},
    "envs": {"branch", "extras", "spelling"},
    "extras": set(),
    "flax": {"extras"},
    "spelling": set(),
    "checks": {"spelling"},
    "sharding": set(),
    "units": {"spelling", "sharding"},
    "metrics": set(),
    "streams": {"branch", "checks", "extras", "locks", "spelling"},
    "optim": {"branch", "checks", "spelling", "precision", "sharding", "units"},
    "nets": {"checks", "extras", "units"},
    "precision": set(),
    "diagnostics": {"metrics"},
    "supervised": {
        "branch",
        "checks",
        "diagnostics",
        "metrics",
        "optim",
        "precision",
        "streams",
        "units",
    },
    "ppo": {
        "checks",
        "diagnostics",
        "extras",
        "metrics",
        "optim",
        "precision",
        "units",
    },
    "studies": {"extras", "locks", "metrics", "spelling"},
    "locks": set(),
    "source": set(),
}
WITHOUT_FLAX = tuple(name for name in ALLOWED if name not in ("nets", "envs", "flax"))


def imported(path):
    """Full names of all that a file imports, at whatever depth of the code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(path):
    """The part of loplax that a file belongs to."""
    return path.relative_to(ROOT / "loplax").with_suffix("").parts[0]


def ids(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("name", ALLOWED)
def test_parts_import_only_what_lies_below_them(name):
    files = [path for path in LIBRARY if part(path) == name]
    assert files
    for path in files:
        inside = [
            full.split(".") for full in imported(path) if full.startswith("loplax")
        ]
        others = {full[1] for full in inside if len(full) > 1} - {name}
        assert others <= ALLOWED[name], ids(path)


@pytest.mark.parametrize("path", LIBRARY, ids=ids)
def test_the_library_knows_nothing_of_experiments_and_tests(path):
    assert not {full.split(".")[0] for full in imported(path)} & {
        "experiments",
        "tests",
    }


@pytest.mark.parametrize("name", WITHOUT_FLAX)
def test_flax_is_not_imported(name):
    for path in LIBRARY:
        if part(path) == name:
            assert "flax" not in {full.split(".")[0] for full in imported(path)}


@pytest.mark.parametrize("name", ["results", "comparisons"])
def test_figures_need_no_jax(name):
    """Results are read and drawn where jax is not even installed."""
    found = {full.split(".")[0] for full in imported(STUDIES / f"{name}.py")}
    assert not found & {"jax", "optax", "flax"}


def loaded_by(*modules):
    """Top-level modules that are loaded in a new interpreter by importing these."""
    code = f"import sys, {', '.join(modules)}\nprint(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return {name.split(".")[0] for name in ended.stdout.split()}


def test_flax_is_not_loaded_through_others():
    modules = ("optim", "units", "metrics", "streams", "supervised")
    loaded = loaded_by(*(f"loplax.{name}" for name in modules))
    assert "jax" in loaded
    heavy = {"tensorflow_datasets", "sklearn", "PIL", "gymnax", "brax"}
    assert not loaded & {"flax", "matplotlib", "xarray", "experiments", *heavy}


def test_figures_do_not_load_jax():
    loaded = loaded_by("loplax.studies.comparisons")
    assert "xarray" in loaded
    assert not loaded & {"jax", "optax", "flax"}


def test_no_file_names_a_place_on_some_machine():
    """Paths such as a home directory work on one machine only."""
    folders = "|".join(("home", "root", "work", "tmp", "Users", "mnt", "opt"))
    place = re.compile(rf"""(?<![\w.~)}}>-])/(?:{folders})/\w""")
    texts = [
        path
        for folder in ("loplax", "experiments", "tests")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".toml", ".json", ".ipynb")
    ]
    texts += [*ROOT.glob("*.md"), ROOT / "pyproject.toml"]
    assert len(texts) > 20
    for path in texts:
        found = place.search(path.read_text())
        assert not found, f"{ids(path)}: {found}"
