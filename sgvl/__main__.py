"""Lay out what an installed package brings along: notebooks, parameter files, examples, figures.

    sgvl init FOLDER
    cd FOLDER
    python -m sgvl.run nano

A checkout needs no such folder. A file that is there already and differs is kept, and named; with
--force it is replaced, and named. Exit codes: 0 done, 2 bad input, 4 a fault of the disk.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from sgvl.common import commands, files
from sgvl.common.errors import ExitCode
from sgvl.common.paths import PACKAGE

PARTS = ("notebooks", "params", "examples", "figures")
# A wheel has them inside the package (pyproject.toml), a checkout beside it.
STARTER = PACKAGE / "starter" if (PACKAGE / "starter").is_dir() else PACKAGE.parent


def lay_out(folder: Path, force: bool = False) -> Iterator[tuple[Path, str]]:
    """Copy the files of ``PARTS`` into a folder.

    Parameters
    ----------
    folder : made if it is not there
    force : replace files that are there and differ

    Yields
    ------
    tuple
        The file written or kept, and ``"new"``, ``"same"``, ``"kept"`` or ``"replaced"``.
    """
    for source in (file for part in PARTS for file in sorted((STARTER / part).rglob("*"))):
        place = source.relative_to(STARTER)
        if source.is_dir() or any(part.startswith(".") for part in place.parts):
            continue
        target, content = folder / place, source.read_bytes()
        known = target.read_bytes() if target.exists() else None
        if known == content:
            yield target, "same"
        elif known is not None and not force:
            yield target, "kept"
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            files.write(target, content)
            yield target, "new" if known is None else "replaced"


def main(arguments: list[str] | None = None) -> ExitCode:
    """Run the command line and return its exit code."""
    parser = commands.parser("sgvl", __doc__)
    parser.add_argument("command", choices=["init"])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--force", action="store_true", help="replace files that differ")
    options = parser.parse_args(arguments)
    return commands.run(lambda: _init(options.folder, options.force))


def _init(folder: Path, force: bool) -> ExitCode:
    done = list(lay_out(folder, force))
    for file, how in done:
        if how in ("kept", "replaced"):
            print(f"{how}: {file}" + ", which differs; --force replaces it" * (how == "kept"))
    print(f"{len(done)} files in {folder}; next: cd {folder}, python -m sgvl.run nano")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
