"""Compare a run's tables and figures with the published ones, or publish them.

    python -m sgvl.report nano --compare    does this run agree with figures/nano?
    python -m sgvl.report nano --publish    copy the run's artefacts to figures/nano

Exit codes: 0 done (--compare: every artefact agrees), 1 an artefact is outside the published
intervals or missing, 2 bad input, which includes a run that is incomplete.
"""

import sys

from sgvl.common import commands
from sgvl.common.errors import ExitCode
from sgvl.report import artefacts


def main(arguments: list[str] | None = None) -> ExitCode:
    """Run the command line and return its exit code."""
    parser = commands.parser("sgvl.report", __doc__)
    parser.add_argument("profile", help="a folder of params/, such as nano")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--compare", action="store_true", help="compare with the published copy")
    action.add_argument("--publish", action="store_true", help="replace the published copy")
    options = parser.parse_args(arguments)
    return commands.run(lambda: _main(options.profile, options.publish))


def _main(profile: str, publish: bool) -> ExitCode:
    run, published = f"runs/{profile}/figures", f"figures/{profile}"
    if publish:
        files = artefacts.publish(profile)
        print(f"{len(files)} files copied from {run} to {published}")
        return ExitCode.DONE
    comparisons = artefacts.compare(profile)
    print(f"{run}, compared with {published}\n\n{artefacts.show(comparisons)}")
    agrees = all(comparison.agrees for comparison in comparisons)
    return ExitCode.DONE if agrees else ExitCode.DIFFERS


if __name__ == "__main__":
    sys.exit(main())
