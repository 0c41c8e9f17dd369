"""Asks an sdist, a wheel, and what the wheel installed, for what they should have."""

import email
import importlib.metadata
import importlib.util
import pathlib
import re
import sys
import tarfile
import zipfile

import loplax

PARTS = ("experiments", "loplax", "notebooks", "docs", "tests")
FILES = ("CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml")
DATA = (".csv", ".gz", ".npy", ".npz", ".pkl", ".zip")
MISSING = {
    "loplax.envs": "rl",
    "loplax.flax": "nets",
    "loplax.nets": "nets",
    "loplax.ppo": "rl",
    "loplax.studies": "studies",
}


def require(condition: bool, *words: object) -> None:
    """Ends the program with these words unless the condition holds."""
    if not condition:
        sys.exit(" ".join(map(str, words)))


def archives(dist: pathlib.Path) -> None:
    """What the sdist and the wheel hold."""
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    with tarfile.open(sdist) as tar:
        source = {m.name.partition("/")[2] for m in tar if m.isfile()}
    for part in PARTS:
        require(any(n.startswith(f"{part}/") for n in source), sdist, "lacks", part)
    require(set(FILES) <= source, sdist, "lacks", set(FILES) - source)
    data = {n for n in source if n.endswith(DATA) and not n.startswith("tests/golden/")}
    require(not data, sdist, "has data:", data)
    with zipfile.ZipFile(wheel) as archive:
        built = set(archive.namelist())
        (info,) = {n.partition("/")[0] for n in built if ".dist-info/" in n}
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    package = {name for name in built if not name.startswith(info)}
    expected = {name for name in source if name.startswith("loplax/")}
    require(package == expected, wheel, "differs from the sdist:", package ^ expected)
    require("loplax/py.typed" in package, wheel, "lacks py.typed")
    require(f"{info}/licenses/LICENSE" in built, wheel, "lacks LICENSE")
    require(metadata["Version"] == loplax.__version__, "metadata:", metadata["Version"])
    print(f"{sdist.name}: {len(source)} files; {wheel.name}: {len(built)} files")


def installed() -> None:
    """What a light install has, and what it says of the rest."""
    place = pathlib.Path(loplax.__file__).resolve()
    require(place.is_relative_to(pathlib.Path(sys.prefix).resolve()), "found", place)
    version = importlib.metadata.version("loplax")
    require(loplax.__version__ == version, loplax.__version__, "is not", version)
    for name in ("units", "optim", "metrics", "streams", "supervised"):
        importlib.import_module(f"loplax.{name}")
    require(importlib.util.find_spec("experiments") is None, "experiments is there")
    for name, extra in MISSING.items():
        said = ""
        try:
            importlib.import_module(name)
        except ImportError as error:
            said = str(error)
        command = re.escape(f'pip install "loplax[{extra}]"')
        found = re.fullmatch(rf"{re.escape(name)} needs \w+: {command}", said)
        require(found is not None, f"{name} says {said!r}")
        print(said)


if __name__ == "__main__":
    archives(pathlib.Path(sys.argv[1]))
    installed()
