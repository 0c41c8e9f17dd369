"""A light install: what it can do, and what it says of the rest."""

import ast
import contextlib
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def distribution(requirement):
    return re.split(r"[\[<>=!~; (]", requirement)[0].strip().lower().replace("_", "-")


def brought(requirement):
    """A distribution and all that it requires."""
    found, waiting = set(), [requirement]
    while waiting:
        name = distribution(waiting.pop())
        if name not in found:
            found.add(name)
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                needs = importlib.metadata.requires(name) or []
                waiting += [each for each in needs if "extra ==" not in each]
    return found


def required(extra):
    """The distributions that an extra names."""
    for requirement in EXTRAS[extra]:
        if inner := re.fullmatch(r"loplax\[(.*)\]", requirement):
            for each in inner[1].split(","):
                yield from required(each)
        else:
            yield distribution(requirement)


def names(distributions):
    """What they are imported as; of one that is not installed, its own name."""
    of = importlib.metadata.packages_distributions()
    found = {n for n, d in of.items() if distributions & set(map(distribution, d))}
    return found | {name for name in distributions if name.isidentifier()}


def imported(folder):
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module.split(".")[0]


def run(code, having=()):
    """Runs code in an interpreter that has jax, optax, and these extras."""
    wanted = set().union(
        *(brought(each) for extra in having for each in required(extra))
    )
    hidden = sorted(names(HEAVY - wanted))
    code = f"import sys\nfor name in {hidden}: sys.modules[name] = None\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )


LIGHT = set().union(*map(brought, PROJECT["dependencies"]))
HEAVY = set(required("all")) - LIGHT


def test_a_light_install_has_transformations_units_metrics_and_learners():
    code = """
import jax, jax.numpy as jnp, optax
from loplax import branch, diagnostics, metrics, optim, streams, supervised, units
apply = lambda params, x: jax.nn.relu(x @ params["a"]) @ params["b"]
params = {"a": jnp.ones((3, 4)), "b": jnp.ones((4, 2))}
x = jnp.ones((5, 3))
hidden = units.find(apply, params, x)
tx = optim.continual_backprop(
    optax.sgd(0.1), hidden, replacement_rate=1e-2, key=jax.random.key(0)
)
_, features = units.tap(apply)(params, x)
tx.update(params, tx.init(params), params, features=features)
print(hidden[0].size, float(metrics.effective_rank(jnp.eye(2))))
"""
    ended = run(code)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("4 ")


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("loplax.nets", "nets"),
        ("loplax.flax", "nets"),
        ("loplax.envs", "rl"),
        ("loplax.ppo", "rl"),
        ("loplax.studies", "studies"),
        ("loplax.studies.results", "studies"),
        ("experiments.launch.program", "studies"),
    ],
)
def test_what_is_missing_is_named_in_one_line(module, extra):
    ended = run(f"import {module}")
    last = ended.stderr.strip().splitlines()[-1]
    assert re.fullmatch(
        rf'ImportError: [\w.]+ needs \w+: pip install "loplax\[{extra}\]"', last
    )


@pytest.mark.parametrize(
    ("module", "extras"),
    [
        ("loplax.nets", ["nets"]),
        ("loplax.studies.plots", ["studies"]),
        ("loplax.streams.datasets", ["studies"]),
        ("loplax.ppo", ["rl"]),
        ("loplax.envs", ["rl"]),
    ],
)
def test_an_extra_is_enough_for_what_names_it(module, extras):
    ended = run(f"import {module}", extras)
    assert ended.returncode == 0, ended.stderr


def test_digits_are_studied_without_tensorflow_datasets_and_gymnax(tmp_path):
    code = (
        "import experiments\n"
        "experiments.run('permuted_mnist', 'smoke', methods='bp', workdir=None)"
    )
    ended = run(code, ["studies"])
    assert ended.returncode == 0, ended.stderr


def test_every_package_that_is_imported_comes_with_an_install():
    here = {"loplax", "experiments"}
    others = set(imported("loplax")) | set(imported("experiments"))
    unknown = others - here - names(LIGHT | HEAVY) - set(sys.stdlib_module_names)
    assert unknown <= {"tensorflow", "no_such_package"}


def test_every_extra_that_is_named_exists():
    texts = [p.read_text() for p in (ROOT / "loplax").rglob("*.py")]
    texts += [p.read_text() for p in (ROOT / "experiments").rglob("*.py")]
    texts += [
        p.read_text() for p in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    ]
    named = set(re.findall(r'needed\("(\w+)"', "".join(texts)))
    for many in re.findall(r'install -?e? ?"[\w.]*\[([\w,]+)\]"', "".join(texts)):
        named |= set(many.split(","))
    assert named <= set(EXTRAS)
    assert len(named) > 5


def test_every_problem_can_be_asked_for_or_says_what_it_needs():
    names = [p.parent.name for p in sorted((ROOT / "experiments").glob("*/study.py"))]
    code = f"""
import importlib
for name in {names}:
    try:
        importlib.import_module(f"experiments.{{name}}.study")
    except ImportError as error:
        print(name, error)
"""
    ended = run(code, ["studies"])
    assert ended.returncode == 0, ended.stderr
    refused = ended.stdout.splitlines()
    assert "nonstationary_control" in ended.stdout
    assert len(refused) < len(names) / 2
    for line in refused:
        assert line.endswith('needs gymnax: pip install "loplax[rl]"')
