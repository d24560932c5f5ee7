"""Audit a folder of published tables: ``python -m sgvl.report.audit [folder]``."""

import shutil
import sys

import sgvl.report.audit
from sgvl.common import commands
from sgvl.common.errors import ExitCode
from sgvl.report import reference
from sgvl.report.audit.findings import show


def main(arguments: list[str] | None = None) -> ExitCode:
    """Run the command line and return its exit code, 2 for a folder that cannot be read."""
    parser = commands.parser("sgvl.report.audit", sgvl.report.audit.__doc__)
    parser.add_argument("folder", nargs="?", default=reference.HERE, help="default: this paper's")
    folder = parser.parse_args(arguments).folder
    return commands.run(lambda: _main(folder))


def _main(folder) -> ExitCode:
    findings = sgvl.report.audit.audit(reference.paper(folder))
    print(show(findings, min(shutil.get_terminal_size((100, 0)).columns, 120)))
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
