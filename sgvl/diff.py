"""Compare two versions of a policy: the flips that the edit should make, and those a judge made.

    python -m sgvl.diff OLD.md NEW.md                     pictures drawn for this edit, nano model
    python -m sgvl.diff OLD.md NEW.md --on photos --server URL --model NAME
    python -m sgvl.diff OLD.md NEW.md --judge rule        the exact labels: nothing missed

Two versions with rules label drawn pictures exactly, so *missed* flips and *collateral* ones are
counted. A file of labels beside the new version, NEW.cases.csv (columns image and label, paths from
there), holds golden cases: pictures and the verdicts that they must have. Writes every picture with
one line of explanation (.csv), a table for a pull request (.md) and a JUnit file (.xml).

Exit codes: 0 no regression, 1 more missed, collateral or failed golden cases than tolerated,
2 bad input, 3 another run is active, 4 some pictures have no answer yet.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from datasets import Dataset

from sgvl.common import commands
from sgvl.common.errors import ExitCode, InputError, need_known, raise_any
from sgvl.common.paths import runs, user_path
from sgvl.common.progress import printer
from sgvl.data import store
from sgvl.data.sources.folder import load as load_labelled
from sgvl.experiments import own_pictures, policy_diff
from sgvl.judge import OUT, add_judge, allow_of, judge_of
from sgvl.judges import make_judge
from sgvl.policies.policy import Policy, file_of
from sgvl.report import policy_diff as written
from sgvl.report.tables import markdown
from sgvl.report.verdicts import digest
from sgvl.world import edits

DRAWN = "drawn"


class Diff(NamedTuple):
    """What an edit changed, and the files that say so."""

    table: pd.DataFrame  # a row for each picture, as ``policy_diff.rows`` describes
    summary: pd.DataFrame  # measures with intervals, as ``policy_diff.summary`` describes
    csv: Path
    page: Path
    junit: Path

    @property
    def complete(self) -> bool:
        """Whether every picture has an answer under both versions."""
        return not (self.table["outcome"] == policy_diff.NO_ANSWER).any()

    def __repr__(self) -> str:
        return markdown(written.measures(self.summary))

    def _repr_html_(self) -> str:
        return written.measures(self.summary).to_html(index=False)


def diff_policies(
    old: str | Path,
    new: str | Path,
    judge: str | dict = "nano",
    on: str | Path = "",
    cases: str | Path = "",
    pictures: int = 200,
    seed: int = 0,
    profile: str = "nano",
    tolerances: Mapping[str, float] = policy_diff.TOLERANCES,
    out: str | Path = OUT,
    yes: bool = False,
    prices: Sequence[float] = (0.0, 0.0),
    allow: Callable[[str], bool] | None = None,
) -> Diff:
    """Ask one judge about pictures under two versions of a policy, and compare.

    Parameters
    ----------
    old, new : Markdown files, or names of shipped policies
    judge : ``"rule"``, or as ``judge_folder`` takes it
    on : a folder of pictures, a set that notebook 01 saved, or ``"drawn"``: pictures drawn for this
        edit, the default where both versions have rules
    cases : labels of golden cases; by default ``NEW.cases.csv`` beside the new version, if it is
        there
    pictures, seed : how many pictures are drawn, and the seed
    profile : of the run that saved the set
    tolerances : percent of missed, collateral and golden that is no regression
    out, yes, prices, allow : as ``judge_folder`` takes them

    Raises
    ------
    InputError
        For bad input, before a model loads, and as ``judge_folder`` does.
    """
    for name, percent in tolerances.items():
        need_known("tolerance of", name, policy_diff.TOLERANCES)
        raise_any(
            [f"tolerance of {name}: {percent}; allowed: 0 to 100"] * (not 0 <= percent <= 100)
        )
    raise_any([f"{pictures} pictures; draw at least 2"] * (pictures < 2))
    raise_any([f"seed {seed}; it is at least 0"] * (seed < 0))
    versions = now, before = own_pictures.load_versions(new, old)
    spec = own_pictures.judge_spec(judge, versions)
    sets = _sets(new, now, before, str(on), cases, pictures, seed, profile)
    asked = make_judge(spec)
    drawn = all(map(store.has_tags, sets))
    notes = own_pictures.notes_on(spec, asked, versions, drawn)
    notes = [f"{note[0].upper()}{note[1:]}." for note in notes]
    print(*notes, sep="\n", end="\n" * bool(notes))
    tables = []
    for dataset in sets:
        answers = own_pictures.ask(
            asked, store.samples(store.usable(dataset)), versions, Path(out) / "answers",
            allow or (lambda plan: yes), tuple(prices), printer(),
        )  # fmt: skip
        tables.append(policy_diff.rows(dataset, answers, now, before))
    table = pd.concat(tables, ignore_index=True)
    summary = policy_diff.summary(table, now, before, tolerances)
    stem = "-".join([now.name, *map(digest, versions), spec["id"], "diff"])
    files = written.write(table, summary, versions, asked.name, notes, Path(out), stem)
    return Diff(table, summary, *files)


def _sets(
    new: str | Path, now: Policy, before: Policy, on: str, cases, pictures: int, seed: int, profile
) -> list[Dataset]:
    """Return the pictures to ask about: those of ``on``, and the golden cases."""
    file = file_of(new)
    beside = user_path(cases) if cases else file.with_suffix(".cases.csv")
    ruled = now.default is not None and before.default is not None
    on = on or (DRAWN if ruled else "")
    sets = []
    if on == DRAWN:
        if not ruled:
            raise InputError(f"{file}: drawn pictures need rules in both versions; name a folder")
        sets.append(edits.pictures(before, now, pictures, seed))
    elif on and user_path(on).exists():
        sets.append(own_pictures.read(on).rows)
    elif on:
        saved = store.read(on, runs(profile) / "data")
        other = [name for name in ("label", "policy") if name in saved.column_names]
        sets.append(saved.remove_columns(other))  # labels under other policies
    if cases or beside.is_file():
        golden = load_labelled(str(beside.parent), str(beside), [str(file)])
        closed = store.left_out(golden).itertuples(index=False)
        raise_any(f"{beside}: {id} cannot be opened ({status})" for id, status in closed)
        sets.append(golden)
    if not sets:
        raise InputError(
            f"{file}: text without rules; name pictures with --on, or write golden cases: {beside}"
        )
    return sets


def main(arguments: list[str] | None = None) -> ExitCode:
    """Run the command line and return its exit code."""
    parser = commands.parser("sgvl.diff", __doc__)
    add = parser.add_argument
    add("old", help="the version before the edit: a Markdown file, or L1 to L5")
    add("new", help="the version after it")
    add("--on", default="", metavar="SET", help="a folder, a set that notebook 01 saved, or drawn")
    add("--cases", default="", metavar="FILE", help="golden cases (default: NEW.cases.csv)")
    add("--pictures", type=int, default=200, metavar="N", help="pictures to draw (default: 200)")
    add("--seed", type=int, default=0, metavar="N", help="of the drawing")
    add("--profile", default="nano", help="of the run that saved the set")
    add("--tolerate", action="append", default=[], metavar="WHAT=PERCENT",
        help="missed (default 10), collateral (2) or golden (0)")  # fmt: skip
    add_judge(parser)
    options = parser.parse_args(arguments)
    return commands.run(lambda: _main(options))


def _main(options: argparse.Namespace) -> ExitCode:
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"
    diff = diff_policies(
        options.old, options.new, judge_of(options), options.on, options.cases, options.pictures,
        options.seed, options.profile, dict(map(_tolerance, options.tolerate)), options.out,
        prices=options.prices, allow=allow_of(options),
    )  # fmt: skip
    print(markdown(written.measures(diff.summary)), end="")
    print(diff.csv, diff.page, diff.junit, sep="\n")
    if not diff.complete:
        return ExitCode.INCOMPLETE
    return ExitCode.DIFFERS if diff.summary["regression"].any() else ExitCode.DONE


def _tolerance(text: str) -> tuple[str, float]:
    name, _, percent = text.partition("=")
    try:
        return name, float(percent)
    except ValueError:
        raise InputError(f"--tolerate {text!r}: write WHAT=PERCENT, as in missed=10") from None


if __name__ == "__main__":
    sys.exit(main())
