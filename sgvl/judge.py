"""Judge a folder of pictures under a policy: a table for spreadsheets, and one HTML page.

    python -m sgvl.judge photos --policy house.md
    python -m sgvl.judge photos --policy house.md --server https://host/v1 --model NAME \\
        --set key_variable=API_KEY
    python -m sgvl.judge photos --policy house.md --against house_before.md
    python -m sgvl.judge photo.jpg --policy house.md --at 2026-03-01    the policy of that day

No labels, no profile: a policy is a Markdown file, and its text alone will do, except for the
shipped model. The judge is a released model by name (`python -m sgvl.judges` lists them), a model
folder or hub id, or a server that speaks OpenAI's protocol; by default the shipped nano model,
which knows drawings only and reads rules. Each picture is asked about once under a policy, every
answer is stored, and a second run asks nothing.

Exit codes: 0 done, 2 bad input, 3 another run is active, 4 some pictures have no answer yet.
"""

import argparse
import hashlib
import html
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from sgvl.common import commands, files
from sgvl.common.errors import MOST, ExitCode, InputError, plain_warnings, raise_any
from sgvl.common.paths import user_path
from sgvl.common.progress import printer
from sgvl.common.strict_yaml import Loader
from sgvl.experiments import one_judge, own_pictures
from sgvl.policies import versions
from sgvl.policies.policy import file_of
from sgvl.report import verdicts
from sgvl.report.tables import cell, texts
from sgvl.scores import risk_control

OUT = "judged"
# Options that a file name need not tell of: a judge's id does, or they change no answer.
UNTOLD = {"kind", "model", "id", "name", "url", "key_variable"}
UNTOLD |= {"concurrency", "max_retries", "batch_size", "device"}


class Verdicts(NamedTuple):
    """The verdicts on a folder, the files that hold them, and scores if there are labels."""

    table: pd.DataFrame
    csv: Path
    page: Path
    scores: pd.DataFrame | None
    complete: bool  # False if some pictures have no answer yet; run again
    passed_over: dict[str, int]  # files that are no pictures, counted by their ending
    decided: pd.DataFrame | None = None  # what the thresholds of a risk cost

    def __repr__(self) -> str:
        return f"{self.table.head(20)}\n{self.csv}\n{self.page}"

    def _repr_html_(self) -> str:
        return texts(self.table.head(20)).to_html() + html.escape(str(self.page))


def judge_folder(
    pictures: str | Path,
    policy: str | Path,
    judge: str | dict = "nano",
    against: str | Path | None = None,
    labels: str | Path | None = None,
    out: str | Path = OUT,
    yes: bool = False,
    prices: Sequence[float] = (0.0, 0.0),
    blur: bool = True,
    allow: Callable[[str], bool] | None = None,
    at: str = "",
    by_rule: bool = False,
    risk: float | None = None,
) -> Verdicts:
    """Judge every picture of a folder, and write a CSV and an HTML page.

    Parameters
    ----------
    pictures : a folder, which is searched to its depths, or one picture
    policy : a Markdown file, or the name of a shipped policy
    judge : ``"nano"``, a name of ``python -m sgvl.judges``, or a kind with options
    against : an earlier version of the policy; the table then says what the edit changed
    labels : file of labels under ``policy``, as docs/YOUR_DATA.md describes; adds scores
    out : folder for the answers, the CSV, the page and a copy of the policy. File names hold the
        folder's name, and digests of the policy, of the judge's other options and of the labels
        with the risk, so that none overwrites another
    yes : whether requests may be sent to a server
    prices : for a million tokens of requests and of replies, to print what a server may cost
    blur : whether the pictures of the page are blurred
    allow : asked instead of ``yes``; it gets the number of requests and their cost
    at : a date, or the digest of a version of the policy, as ``policies.versions.at`` takes it
    by_rule : judge each rule apart, as ``sgvl.experiments.rule_by_rule`` describes; an edit then
        costs the edited rules alone
    risk : share of the unsafe pictures that may pass as safe, and of the safe ones that may be
        called unsafe. The labels give thresholds on P(unsafe) for it; the rest goes to a person

    Raises
    ------
    InputError
        For bad input, before a model loads; for a server that may not be sent requests, or that
        fails 20 times in a row.
    """
    if risk is not None:
        raise_any(["a risk needs labelled pictures: name their --labels"] * (labels is None))
        risk_control.thresholds([], [], risk)  # refuses a risk that is none
    missing = not user_path(pictures).exists()  # said before a judge's libraries are imported
    raise_any([f"{pictures}: no such folder or picture"] * missing)
    policies = one_judge.load_versions(policy, against)
    named = (policy, against)[: len(policies)]
    texts = [file_of(source).read_bytes() for source in named]  # they may be edited meanwhile
    if at:
        version = versions.at(file_of(policy), at, Path(out))
        policies[0], texts[0] = version.policy, version.content
        since = f", committed {version.date:%Y-%m-%d %H:%M} UTC" if version.date else ""
        print(f"policy {version.policy.name} {verdicts.digest(version.policy)}{since}")
    spec = one_judge.judge_spec(judge, policies, by_rule)
    found = own_pictures.read(pictures)
    judged = own_pictures.judge_pictures(
        found, policies, spec, Path(out) / "answers", labels,
        allow or (lambda plan: yes), tuple(prices), blur, printer(), by_rule, risk,
    )  # fmt: skip
    place = user_path(pictures).resolve()
    beside = place.parent == Path(out).resolve().parent
    options = judge.items() if isinstance(judge, dict) else ()
    told = {
        "from": "" if beside else str(place.parent),
        "set": sorted(item for item in options if item[0] not in UNTOLD),
        "labels": labels and (files.sha256(user_path(labels)), risk),
    }
    names = one_judge.part_of_name(place.name, 30), policies[0].name
    digests = map(verdicts.digest, policies)
    stem = "-".join([*filter(None, names), *digests, spec["id"], *marked(told)])
    written = verdicts.write(judged, Path(out), stem, found.passed_over)
    for version, text in zip(policies, texts, strict=True):
        files.write(Path(out) / f"{version.name}-{verdicts.digest(version)}.md", text)
    scored = judged.scores, judged.complete, found.passed_over, judged.decided
    return Verdicts(judged.table, *written, *scored)


def marked(told: Mapping[str, object]) -> list[str]:
    """Return what tells runs of one model apart in names of files: a digest of each that is set."""
    digests = {k: hashlib.sha256(repr(v).encode()).hexdigest() for k, v in told.items() if v}
    return [f"{what}-{digest[:6]}" for what, digest in digests.items()]


def main(arguments: list[str] | None = None) -> ExitCode:
    """Run the command line and return its exit code."""
    parser = commands.parser("sgvl.judge", __doc__)
    add = parser.add_argument
    add("pictures", help="a folder, or one picture")
    add("--policy", required=True, metavar="FILE", help="Markdown file, or L1 to L5")
    add("--at", default="", metavar="DATE|DIGEST", help="under its version of that day, or digest")
    add("--against", metavar="FILE", help="an earlier version: show what changed")
    add("--labels", metavar="FILE", help="labels under the policy: add scores")
    add("--risk", type=float, metavar="SHARE", help="with labels: at most this share of missed "
        "pictures, and of false alarms; what is not sure enough goes to a person")  # fmt: skip
    add_judge(parser)
    add("--no-blur", action="store_true", help="show the pictures of the page as they are")
    options = parser.parse_args(arguments)
    return commands.run(lambda: _main(options))


def _main(options: argparse.Namespace) -> ExitCode:
    plain_warnings()
    judged = judge_folder(
        options.pictures, options.policy, judge_of(options), options.against, options.labels,
        options.out, options.yes, options.prices, not options.no_blur, allow_of(options),
        options.at, options.by_rule, options.risk,
    )  # fmt: skip
    table = judged.table
    closed = table[table["verdict"] == own_pictures.NOT_JUDGED]
    for row in closed.head(MOST).itertuples():
        print(f"{row.picture}: {row.reason}")
    if len(closed) > MOST:
        print(f"and {len(closed) - MOST} more that were not judged")
    if judged.passed_over:
        others = ", ".join(f"{n} {ending}" for ending, n in judged.passed_over.items())
        print(f"files of other kinds, passed over: {others}")
    print(", ".join(f"{n} {verdict}" for verdict, n in verdicts.counts(table).items()))
    if options.against:
        print(f"{(table['changed'] != '').sum()} changed by the edit")
    for row in judged.scores.itertuples() if judged.scores is not None else ():
        floor = f"; {200 * row.positives / (row.n + row.positives):.1f} if all were called unsafe"
        floor *= row.metric == "f1"
        print(f"{row.policy}: {row.metric} {cell(row)}, n = {row.n}, {row.positives} unsafe{floor}")
    for row in () if judged.decided is None else judged.decided.itertuples():
        print(f"{row.measure}: {cell(row)}, n = {row.n}, each left out in turn")
    print(f"{judged.csv}\n{judged.page}")
    return ExitCode.DONE if judged.complete else ExitCode.INCOMPLETE


def add_judge(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a judge, say what it costs, and where its answers go."""
    add = parser.add_argument
    add("--judge", metavar="NAME", help="of a released model, as python -m sgvl.judges lists them")
    add("--model", metavar="ID", help="a folder or hub id; with --server, the model's name there")
    add("--server", metavar="URL", help="of an OpenAI-compatible server, up to /v1")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="another option of it")
    add("--prices", nargs=2, type=price, default=(0, 0), metavar=("IN", "OUT"),
        help="of a million tokens of requests and of replies")  # fmt: skip
    add("--out", default=OUT, metavar="FOLDER", help=f"for answers and tables (default: {OUT})")
    add("--yes", action="store_true", help="send requests to a server without asking")
    add("--by-rule", action="store_true",
        help="judge each rule apart: an edit then costs the edited rules alone")  # fmt: skip


def price(text: str) -> float:
    """Return a price; argparse tells of a ValueError, here for one below 0 or without end."""
    if not 0 <= (value := float(text)) < math.inf:
        raise ValueError
    return value


def judge_of(options: argparse.Namespace) -> str | dict:
    """Return the judge that the options name."""
    spec = {"kind": options.judge} if options.judge not in (None, "nano") else {}
    if options.server:
        spec = {"kind": "served", "url": options.server}
        raise_any(["--server goes without --judge"] * bool(options.judge))
        raise_any(["--server needs --model, the model's name there"] * (not options.model))
    if options.model:
        spec = {"kind": "chat", **spec, "model": options.model}
    for setting in options.set:
        name, sign, value = setting.partition("=")
        if not sign:
            raise InputError(f"--set {setting!r}: write KEY=VALUE, such as --set parser=word")
        try:
            spec[name] = yaml.load(value, Loader)
        except yaml.YAMLError:
            spec[name] = value
    return {"kind": "chat", "model": "nano", **spec} if "kind" not in spec else spec


def allow_of(options: argparse.Namespace) -> Callable[[str], bool]:
    """Return what decides whether a server may be sent requests: --yes, or else the user."""
    if options.yes or not sys.stdin.isatty():
        return lambda plan: options.yes
    return lambda plan: input("Send them? [y/N] ").strip().lower() in ("y", "yes")


if __name__ == "__main__":
    sys.exit(main())
