"""The pages that are made of the code say what the code says, of all of it."""

import doctest
import importlib
import os
import pathlib
import re

import pytest

import experiments
import pages
from experiments.launch import comments
from experiments.launch import problems as known
from experiments.methods import settings
from experiments.methods.table import NAMED, PLUGINS
from pages import api, figures, members, methods, problems

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def of_methods():
    return methods.pages()


@pytest.fixture(scope="module")
def of_problems():
    return problems.pages(DOCS / "measured")


@pytest.fixture(scope="module")
def of_api():
    return api.pages()


def test_every_plugin_is_in_the_overview_and_says_what_it_does(of_methods):
    rows = of_methods["methods/_table.md"].splitlines()
    for name, entry in (PLUGINS | NAMED).items():
        (row,) = [row for row in rows if row.startswith(f"| [`{name}`]")]
        assert entry.does and entry.does.replace("|", "\\|") in row


@pytest.mark.parametrize("name", PLUGINS)
def test_a_page_has_every_number_with_its_default(of_methods, name):
    page = of_methods[f"methods/{name}.md"]
    plugin = PLUGINS[name]
    for setting, value in {**plugin.numbers, **plugin.choices}.items():
        (row,) = re.findall(rf"^\| `{name}\.{setting}` .*$", page, re.M)
        shown = row.split(" | ")[2].strip("`")
        if isinstance(value, tuple):
            assert shown == f"({','.join(value)})"
        else:
            assert shown == str(value) or float(shown) == value


def test_what_a_problem_sets_is_on_the_page_of_the_method(of_methods):
    row = re.search(r"^\| `cbp\.budget` .*$", of_methods["methods/cbp.md"], re.M)[0]
    assert "`all` in [`continual_imagenet`]" in row
    assert "[`ant`](../problems/ant.md) (`paper`)" in row


@pytest.mark.parametrize("name", PLUGINS)
def test_what_builds_a_plugin_is_in_the_reference(of_api, name):
    dotted = PLUGINS[name].made_by
    if not dotted.startswith("loplax."):
        return
    module, _, own = dotted.rpartition(".")
    assert hasattr(importlib.import_module(module), own)
    where = of_api.get(f"api/{module}.md", "")
    assert f":: {own}\n" in where or f"api/{dotted}.md" in of_api


@pytest.mark.parametrize("name", known.NAMES)
def test_a_page_has_every_preset_and_setting_of_its_problem(of_problems, name):
    page = of_problems[f"problems/{name}.md"]
    configs = known.part(name, "config")
    for preset, text in configs.PRESETS.items():
        assert f"| `{preset}` | {text} |" in page
    for address, _ in settings.flatten(configs.get_config()):
        if address in settings.DEFAULTS or address.startswith("sweep."):
            continue
        assert address == "methods" or f"| `{address}` |" in page


def test_every_file_of_what_was_measured_is_on_a_page(of_problems):
    files = {path.stem for path in (DOCS / "measured").glob("*.md")}
    assert files <= set(known.NAMES)
    for name in files:
        assert f"measured/{name}.md" in of_problems[f"problems/{name}.md"]


def test_every_committed_figure_is_in_the_gallery_with_a_caption():
    texts = {path: path.read_text() for path in DOCS.rglob("*.md")}
    gallery = figures.pages(texts, DOCS)["_gallery.md"]
    for figure in ROOT.glob("experiments/*/*.png"):
        assert f":::{{figure}} {os.path.relpath(figure, DOCS)}\n:alt: " in gallery


def test_a_comment_is_found_behind_a_setting_or_before_it(tmp_path):
    other = tmp_path / "other.py"
    other.write_text("# of both\nconfig.a = config.f = 6\n")
    path = tmp_path / "config.py"
    path.write_text(
        "def get_config():\n"
        "    config.a = 1  # behind\n"
        "    # in front,\n"
        "    # on two lines\n"
        "    config.b.c = 2\n"
        "    config.d = (\n"
        "        3,\n"
        "    )  # behind brackets\n"
        "    config.a = 4  # later\n"
        "    config.e = 5\n"
    )
    assert comments.of(other, path) == {
        "a": "behind",
        "f": "of both",
        "b.c": "in front, on two lines",
        "d": "behind brackets",
    }


def test_a_colon_in_what_is_returned_ends_no_type():
    lines = ["Loads.", "", "Returns:", "  The rest: numbers.", ""]
    members.without_types(None, "function", "f", None, None, lines)
    assert lines[3] == "  : The rest: numbers."


def test_pages_that_are_gone_are_removed_and_others_keep_their_time(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(pages, "GENERATED", tmp_path)
    pages.write({"a.md": "a", "b.md": "b"})
    os.utime(tmp_path / "a.md", (0, 0))
    pages.write({"a.md": "a"})
    assert (tmp_path / "a.md").stat().st_mtime == 0
    assert not (tmp_path / "b.md").exists()
    books = {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {path.name for path in tmp_path.glob("notebooks/*")} == books


def test_a_method_is_run_where_it_belongs(of_methods):
    for name, problem in (
        ("metaplastic", "metaplasticity"),
        ("real_weights", "metaplasticity"),
        ("er", "stability_gap"),
        ("bp", "permuted_mnist"),
        ("cbp", "permuted_mnist"),
    ):
        page = of_methods[f"methods/{name}.md"]
        assert f"python -m experiments.{problem}.run --preset=digits" in page, name


def test_results_of_a_swept_study_are_read_as_is_shown(tmp_path):
    text = (DOCS / "studies.md").read_text()
    assert '.run "--config.sweep.cbp.replacement_rate=(1e-5,1e-4)"' in text
    experiments.run(
        "slowly_changing_regression",
        "smoke",
        methods="bp,cbp",
        sweep={"cbp.replacement_rate": [1e-5, 1e-4]},
        workdir=tmp_path,
        examples=80,
        bin=20,
        observe=(),
        progress=False,
        **{"stream.period": 10},
    )
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    (block,) = [block for block in blocks if "load(" in block]
    space: dict = {}
    exec(block.replace("runs/permuted_mnist", str(tmp_path)), space)
    assert dict(space["loss"].sizes) == {"arm": 1, "bin": 4}


def test_the_loop_of_getting_started_runs():
    text = (DOCS / "getting_started.md").read_text()
    loop, study = re.findall(r"```python\n(.*?)```", text, re.S)
    space = {}
    exec(loop, space)
    assert space["state"].count == 1
    assert "experiments.run(" in study and study in (DOCS / "studies.md").read_text()


def test_the_examples_of_the_concepts_run():
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    parser = doctest.DocTestParser()
    for path in (DOCS / "concepts").glob("*.md"):
        text = "\n".join(re.findall(r"```python\n(.*?)```", path.read_text(), re.S))
        runner.run(parser.get_doctest(text, {}, path.name, str(path), 0))
    assert runner.summarize(verbose=False).attempted == 3
    assert not runner.failures
