"""Work directories of studies: list, compare, export, merge them.

python -m experiments list [FOLDER]          (default: runs)
python -m experiments compare A B [...]
python -m experiments export A --format=csv  (or nc, json; to standard output)
python -m experiments merge OUT A [...]      (runs of one study, such as its shards)
"""

import argparse
import json
import pathlib
import sys


def main(argv: list[str] | None = None) -> None:
    """The program.

    Args:
      argv: the arguments; those of the command line by default.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)
    listing = commands.add_parser("list", help="the studies in a folder")
    listing.add_argument("folder", nargs="?", default="runs")
    listing.set_defaults(run=_list)
    comparing = commands.add_parser("compare", help="several studies in one table")
    comparing.add_argument("workdirs", nargs="+")
    comparing.add_argument("--save", help="folder for the figures")
    comparing.set_defaults(run=_compare)
    exporting = commands.add_parser("export", help="all metrics of a study")
    exporting.add_argument("workdir")
    exporting.add_argument("--format", choices=("csv", "json", "nc"), default="csv")
    exporting.set_defaults(run=_export)
    merging = commands.add_parser("merge", help="runs of one study in one directory")
    merging.add_argument("out", help="where they go; it may have some already")
    merging.add_argument("workdirs", nargs="+", help="they stay as they are")
    merging.set_defaults(run=_merge)
    arguments = parser.parse_args(argv)

    from experiments.launch import command_line

    with command_line.clear_errors():
        arguments.run(arguments)


def _list(arguments) -> None:
    folder = pathlib.Path(arguments.folder)
    found = [path.parent for path in sorted(folder.glob("**/study.json"))]
    if not found:
        raise ValueError(f"there is no study in {folder}")
    for path in found:
        print(_line(path))


def _line(path: pathlib.Path) -> str:
    """What a study is, and how far."""
    from experiments.figures import words
    from loplax.studies import results

    dataset = results.load(path)
    config = json.loads(dataset.attrs["config"])
    arms = ", ".join(dataset["arm"].values)
    problem = config.get("problem", "another problem")
    share = int(100 * words.done(dataset))
    own = dataset["bins_asked"] > 0  # a shard has some of the runs
    part = "" if own.all() else f", {int(own.sum())} of {own.size} runs"
    seeds = f"{dataset.sizes['seed']} seeds"
    return f"{path}: {problem}, {seeds}{part}, {share}% done: {arms}"


def _merge(arguments) -> None:
    from loplax.studies import merging

    merging.merge(arguments.out, arguments.workdirs)
    print(_line(pathlib.Path(arguments.out)))


def _outcome(workdirs: list[str]):
    """The results of several directories together, an arm's name after its own."""
    from experiments.launch import outcome
    from loplax.studies import results

    datasets = {workdir: results.load(workdir) for workdir in workdirs}
    problems = {json.loads(d.attrs["config"]).get("problem") for d in datasets.values()}
    if len(problems) > 1:
        named = sorted(map(str, problems))
        raise ValueError(f"these are different problems: {named}")
    if None in problems:
        raise ValueError(f"no problem of experiments is in {workdirs}")
    together = next(iter(datasets.values()))
    return outcome.Outcome(
        _together(datasets) if len(datasets) > 1 else together, problems.pop()
    )


def _together(datasets):
    """Results of several directories, NaN where one does not have what others have."""
    import numpy as np
    import xarray

    numbers = {
        str(n) for d in datasets.values() for n in d.coords if d[n].dims == ("arm",)
    }
    numbers -= {"arm", "method"}
    steps = max((d["step"] for d in datasets.values()), key=len)
    renamed = []
    for workdir, dataset in datasets.items():
        if not np.array_equal(dataset["step"], steps[: dataset.sizes["bin"]]):
            raise ValueError(
                f"the bins of {workdir} are not as long as those of others"
            )
        nowhere = ("arm", np.full(dataset.sizes["arm"], np.nan))
        coords = dict.fromkeys(numbers - set(dataset.coords), nowhere)
        methods, arms = dataset["method"].values, dataset["arm"].values
        own = [f"{method} ({workdir})" for method in methods]
        rest = [a.removeprefix(m) for a, m in zip(arms, methods, strict=True)]
        coords["method"] = ("arm", own)
        coords["arm"] = [name + values for name, values in zip(own, rest, strict=True)]
        renamed.append(dataset.drop_vars("step").assign_coords(coords))
    found = xarray.concat(
        renamed, "arm", join="outer", data_vars="all", combine_attrs="override"
    ).assign_coords(step=steps)
    counts = dict.fromkeys(("bins_asked", "bins_done", "bins_sound"), int)
    counts["diverged"] = bool
    return found.assign({n: found[n].fillna(0).astype(of) for n, of in counts.items()})


def _compare(arguments) -> None:
    found = _outcome(arguments.workdirs)
    print(found.table())
    if arguments.save:
        print("figures:", *found.save(arguments.save))


def _export(arguments) -> None:
    from loplax.studies import results

    dataset = results.load(arguments.workdir)
    if arguments.format == "nc":
        if sys.stdout.isatty():
            raise ValueError(
                "nc is not for a terminal: write it into a file, > FILE.nc"
            )
        sys.stdout.buffer.write(dataset.to_netcdf(None, engine="scipy"))
        return
    frame = dataset.to_dataframe().reset_index()
    if arguments.format == "json":
        frame.to_json(sys.stdout, orient="records", lines=True)
    else:
        frame.to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main()
