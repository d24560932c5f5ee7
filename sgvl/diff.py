"""Compare two versions of a policy: the flips that the edit should make, and those a judge made.

    python -m sgvl.diff OLD.md NEW.md                     pictures drawn for this edit, nano model
    python -m sgvl.diff OLD.md NEW.md --on photos --server URL --model NAME
    python -m sgvl.diff OLD.md NEW.md --judge rule        the exact labels: nothing missed
    python -m sgvl.diff --history house.md                each version: its edits and their flips
    python -m sgvl.diff --lint house.md --strict          where the rules and the text do not agree

Two versions with rules label drawn pictures exactly, so *missed* flips and *collateral* ones are
counted. A file of labels beside the new version, NEW.cases.csv (columns image and label, paths from
there), holds golden cases: pictures and the verdicts that they must have. Writes every picture with
one line of explanation (.csv), a table for a pull request (.md) and a JUnit file (.xml).

--history reads the commits of a file, or takes its versions, the oldest first; it asks nothing.
--lint prints what it finds with file and line.

Exit codes: 0 no regression, 1 a regression: more missed, collateral or failed golden cases than
--tolerate allows (with --lint --strict: a finding), 2 bad input, 3 another run is active, 4 some
pictures have no answer yet.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from datasets import Dataset

from sgvl.common import commands
from sgvl.common.errors import ExitCode, InputError, need_known, one_line, plain_warnings, raise_any
from sgvl.common.files import write_spreadsheet
from sgvl.common.paths import runs, user_path
from sgvl.common.progress import printer
from sgvl.data import store
from sgvl.data.sources.folder import load as load_labelled
from sgvl.experiments import one_judge, own_pictures, policy_diff
from sgvl.experiments.policy_history import table as history_table
from sgvl.judge import OUT, add_judge, allow_of, judge_of, marked
from sgvl.judges import make_judge
from sgvl.policies import versions as of_policy
from sgvl.policies.lint import Finding, lint
from sgvl.policies.policy import Policy, file_of, load
from sgvl.report import policy_diff as written
from sgvl.report.tables import markdown, page_markdown
from sgvl.report.verdicts import digest
from sgvl.world import edits

DRAWN = "drawn"
PICTURES = 200  # that are drawn by default


class Diff(NamedTuple):
    """What an edit changed, and the files that say so."""

    table: pd.DataFrame  # a row for each picture, as ``policy_diff.rows`` describes
    summary: pd.DataFrame  # measures with intervals, as ``policy_diff.summary`` describes
    csv: Path
    page: Path
    junit: Path
    sentence: str = ""  # the summary in words

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
    pictures: int = PICTURES,
    seed: int = 0,
    profile: str = "nano",
    tolerances: Mapping[str, float] = policy_diff.TOLERANCES,
    out: str | Path = OUT,
    yes: bool = False,
    prices: Sequence[float] = (0.0, 0.0),
    allow: Callable[[str], bool] | None = None,
    by_rule: bool = False,
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
    out, yes, prices, allow, by_rule : as ``judge_folder`` takes them

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
    _check_drawing(pictures, seed)
    versions = now, before = one_judge.load_versions(new, old)
    spec = one_judge.judge_spec(judge, versions, by_rule)
    sets = _sets(new, now, before, str(on), cases, pictures, seed, profile)
    asked = make_judge(spec)
    drawn = all(map(store.has_tags, sets))
    notes = one_judge.notes_on(spec, asked, versions, drawn)
    notes = [f"{note[0].upper()}{note[1:]}." for note in notes]
    print(*notes, sep="\n", end="\n" * bool(notes))
    tables = []
    for dataset in sets:
        answers = one_judge.ask(
            asked, store.samples(store.usable(dataset)), versions, Path(out) / "answers",
            allow or (lambda plan: yes), tuple(prices), printer(), by_rule=by_rule,
        )  # fmt: skip
        tables.append(policy_diff.rows(dataset, answers, now, before))
    table = pd.concat(tables, ignore_index=True)
    summary = policy_diff.summary(table, now, before, tolerances)
    chosen = {"on": "" if str(on) == DRAWN else str(on), "cases": str(cases)}
    chosen |= {"drawn": "" if (pictures, seed) == (PICTURES, 0) else (pictures, seed)}
    stem = "-".join([now.name, *map(digest, versions), spec["id"], *marked(chosen), "diff"])
    files = written.write(table, summary, versions, asked.name, notes, Path(out), stem)
    origin = "drawn for this edit" if str(on) in ("", DRAWN) else f"of {on}"
    return Diff(table, summary, *files, policy_diff.sentence(table, asked.name, origin))


def _check_drawing(pictures: int, seed: int) -> None:
    raise_any([f"{pictures} pictures; draw at least 2"] * (pictures < 2))
    raise_any([f"seed {seed}; it is at least 0"] * (seed < 0))


def _sets(
    new: str | Path, now: Policy, before: Policy, on: str, cases, pictures: int, seed: int, profile
) -> list[Dataset]:
    """Return the pictures to ask about: those of ``on``, and the golden cases."""
    file, beside = file_of(new), _golden(new, cases)
    golden = bool(cases) or beside.is_file()
    ruled = now.default is not None and before.default is not None
    lacking = [version for version, p in (("new", now), ("old", before)) if p.default is None]
    bare = f"the {' and the '.join(lacking)} version of {now.name} is text without rules"
    same = now.digest == before.digest  # then golden cases alone tell something
    on = on or (DRAWN if ruled and not (same and golden) else "")
    sets = []
    if on == DRAWN:
        if not ruled:
            raise InputError(f"drawn pictures need rules in both versions; {bare}; name a folder")
        sets.append(edits.pictures(before, now, pictures, seed))
    elif on:
        sets.append(_named_set(on, profile))
    if golden:
        labelled = load_labelled(str(beside.parent), str(beside), [str(file)])
        closed = store.left_out(labelled).itertuples(index=False)
        raise_any(f"{beside}: {id} cannot be opened ({status})" for id, status in closed)
        sets.append(labelled)
    if not sets:
        raise InputError(f"{bare}; name pictures with --on, or write golden cases: {beside}")
    return sets


def _golden(new: str | Path, cases: str | Path) -> Path:
    """Return the file of golden cases: the one that is named, or the one beside the new version."""
    return user_path(cases) if cases else file_of(new).with_suffix(".cases.csv")


def _named_set(on: str, profile: str) -> Dataset:
    """Return the pictures of a folder, or of a set that notebook 01 saved."""
    if user_path(on).exists():
        return own_pictures.read(on).rows
    try:
        saved = store.read(on, runs(profile) / "data")
    except InputError as error:
        raise InputError(f"{on}: no such folder of pictures; as a set: {error}") from None
    other = [name for name in ("label", "policy") if name in saved.column_names]
    return saved.remove_columns(other)  # labels under other policies


def policy_history(
    *policies: str | Path,
    judge: str | dict = "nano",
    on: str | Path = "",
    pictures: int = PICTURES,
    seed: int = 0,
    profile: str = "nano",
    out: str | Path = OUT,
) -> pd.DataFrame:
    """Describe the versions of a policy and their edits, as ``policy_history.table`` does.

    What is counted are stored answers of ``diff_policies`` with the same ``judge``, ``on``,
    ``pictures``, ``seed`` and ``out``; nothing is asked.

    Parameters
    ----------
    policies : one file, whose commits are read, or its copies in ``out`` by ``parent``; or the
        files of all versions, the oldest first

    Raises
    ------
    InputError
        For bad input.
    """
    _check_drawing(pictures, seed)
    if len(policies) == 1:
        found = of_policy.history(file_of(policies[0]), Path(out))
    else:
        found = [of_policy.Version(load(file), b"") for file in policies]
    named = _named_set(str(on), profile) if str(on) not in ("", DRAWN) else None

    def to_count_on(before: Policy, now: Policy) -> Dataset | None:
        ruled = now.default is not None and before.default is not None
        if named is None:
            return edits.pictures(before, now, pictures, seed) if ruled else None
        return named if ruled or not store.has_tags(named) else None

    answers = Path(out) / "answers"
    spec = one_judge.judge_spec(judge, [version.policy for version in found])
    stored = (answers / f"{spec['id']}.jsonl").is_file()
    asked = make_judge(spec) if stored else None
    return history_table(found, to_count_on, asked, answers)


def lint_policies(
    *policies: str | Path, on: str = "", divided: str | Path = "", profile: str = "nano"
) -> list[Finding]:
    """Check policies with the linter of ``sgvl.policies.lint``.

    Parameters
    ----------
    on : a set with tags that notebook 01 saved; by default any thing at any place
    divided : the file ``agreement/clauses.csv`` of notebook 01d

    Raises
    ------
    InputError
        For bad input.
    """
    scenes, rows = None, []
    if on and on != DRAWN:
        named = _named_set(on, profile)
        if not store.has_tags(named):
            raise InputError(
                f"--on {on}: its pictures have no tags, so no rule can be tried on them"
            )
        scenes = list(named["tags"])
    if divided:
        rows = _clauses(user_path(divided))
    return [finding for policy in policies for finding in lint(policy, scenes, rows)]


def _clauses(file: Path) -> list[dict]:
    """Read the table of clauses that notebook 01d saves."""
    causes = {f"{cause}{end}" for cause in ("unclear", "values") for end in ("", "_low", "_high")}
    try:
        table = pd.read_csv(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: {error}") from None
    found = {"policy", "clause"} & {*table.columns} | {*table.select_dtypes("number").columns}
    if missing := sorted({"policy", "clause", *causes} - found):
        none = f"no column {', '.join(missing)}"
        raise InputError(f"{file}: {none}; name agreement/clauses.csv of 01d_release")
    return table.to_dict("records")


def main(arguments: list[str] | None = None) -> ExitCode:
    """Run the command line and return its exit code."""
    parser = commands.parser("sgvl.diff", __doc__)
    add = parser.add_argument
    add("policies", nargs="+", metavar="POLICY",
        help="two versions, before the edit and after it: Markdown files, or L1 to L5")  # fmt: skip
    other = parser.add_mutually_exclusive_group().add_argument
    other("--history", action="store_true", help="list the versions of one file, or of several")
    other("--lint", action="store_true", help="check files, each alone; reads --on and --divided")
    add("--strict", action="store_true", help="end --lint with 1 if it finds something")
    add("--divided", default="", metavar="FILE", help="agreement/clauses.csv of notebook 01d")
    add("--on", default="", metavar="SET", help="a folder, a set that notebook 01 saved, or drawn")
    add("--cases", default="", metavar="FILE", help="golden cases (default: NEW.cases.csv)")
    add(
        "--pictures",
        type=int,
        default=PICTURES,
        metavar="N",
        help=f"pictures to draw (default: {PICTURES})",
    )
    add("--seed", type=int, default=0, metavar="N", help="of the drawing")
    add("--profile", default="nano", help="of the run that saved the set")
    add("--tolerate", action="append", default=[], metavar="WHAT=PERCENT",
        help="missed (default 10), collateral (2) or golden (0)")  # fmt: skip
    add_judge(parser)
    options = parser.parse_args(arguments)
    return commands.run(lambda: _main(options))


def _main(options: argparse.Namespace) -> ExitCode:
    plain_warnings()
    if options.lint:
        return _lint(options)
    if options.history:
        return _history(options)
    if len(options.policies) != 2:
        named = ", ".join(options.policies)
        raise InputError(f"{named}: name two versions, before the edit and after it")
    old, new = options.policies
    now, before = one_judge.load_versions(new, old)
    if now.digest == before.digest and not (options.cases or _golden(new, "").is_file()):
        print(f"{old} and {new} are the same version of the policy {now.name}: nothing is asked")
        return ExitCode.DONE
    diff = diff_policies(
        *options.policies, judge_of(options), options.on, options.cases, options.pictures,
        options.seed, options.profile, dict(map(_tolerance, options.tolerate)), options.out,
        prices=options.prices, allow=allow_of(options), by_rule=options.by_rule,
    )  # fmt: skip
    print(diff.sentence, markdown(written.measures(diff.summary)), sep="\n\n", end="")
    print(diff.csv, diff.page, diff.junit, sep="\n")
    if not diff.complete:
        return ExitCode.INCOMPLETE
    above = diff.summary[diff.summary["regression"]]
    if above.empty:
        return ExitCode.DONE
    texts = [
        f"{row.measure} {row.value:.1f} %, tolerated {row.tolerance:g} %"
        for row in above.itertuples()
    ]
    print(f"regression, exit code 1: {'; '.join(texts)} (--tolerate changes it)")
    return ExitCode.DIFFERS


def _history(options: argparse.Namespace) -> ExitCode:
    raise_any(["--history counts answers to whole policies: leave out --by-rule"] * options.by_rule)
    table = policy_history(
        *options.policies, judge=judge_of(options), on=options.on, pictures=options.pictures,
        seed=options.seed, profile=options.profile, out=options.out,
    )  # fmt: skip
    Path(options.out).mkdir(parents=True, exist_ok=True)
    file = Path(options.out) / f"{load(options.policies[-1]).name}-history.csv"
    write_spreadsheet(table, file)
    print(page_markdown(table.loc[:, (table != "").any()]), file, sep="\n")
    return ExitCode.DONE


def _lint(options: argparse.Namespace) -> ExitCode:
    found = lint_policies(
        *options.policies, on=options.on, divided=options.divided, profile=options.profile
    )
    print(*map(one_line, map(str, found)), sep="\n", end="\n" * bool(found))
    texts = [policy for policy in options.policies if load(policy).default is None]
    for policy in texts:
        print(f"{policy}: not checked: it has no rules to compare with its text")
    checked = len(options.policies) - len(texts)
    strict = ", exit code 1" * bool(found and options.strict)
    print(f"findings: {len(found)}, policies: {checked}{strict}")
    return ExitCode.DIFFERS if strict else ExitCode.DONE


def _tolerance(text: str) -> tuple[str, float]:
    name, _, percent = text.partition("=")
    try:
        return name, float(percent)
    except ValueError:
        raise InputError(f"--tolerate {text!r}: write WHAT=PERCENT, as in missed=10") from None


if __name__ == "__main__":
    sys.exit(main())
