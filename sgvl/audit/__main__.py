"""``python -m sgvl.audit [folder]``: print what follows from a folder of published tables."""

import argparse
import shutil
import sys

import sgvl.audit
from sgvl import reference
from sgvl.audit.findings import show
from sgvl.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code, 2 for a folder that cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m sgvl.audit",
        description=sgvl.audit.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", default=reference.HERE, help="default: this paper's")
    try:
        findings = sgvl.audit.audit(reference.paper(parser.parse_args(arguments).folder))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(show(findings, min(shutil.get_terminal_size((100, 0)).columns, 120)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
