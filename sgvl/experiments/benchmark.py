"""What 05_benchmark asks every judge: one place asks, everything later reads.

Each kind of answer is a *frame*: a table with the id of its judge in the column ``judge``.

==================  ==============================================================================
frame               what it holds
==================  ==============================================================================
levels              judgements of SafeEditBench, pairs under every level
controls            the same pictures without a policy, the same policies without a picture
content             judgements of UnsafeBench; a category stands in the column policy
own                 judgements of rows that bring their own policy, such as LlavaGuard's
following_neutral   judgements of pictures under two random policies of opposite label,
following_harmful   over harmless and over harmful things
policyshift         judgements of published pictures under policies that shift
inversion           verdicts under each level and under its inversion
squares             verdicts on pictures and policies, each in two versions
general             answers to questions that have nothing to do with safety
naming              the things of the pictures, and whether a caption names them
==================  ==============================================================================

``general`` and ``naming`` hold only judges that reply to plain requests; ``naming``, ``inversion``
and ``squares`` need drawn pictures, whose content is known.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, get_type_hints

import pandas as pd
from datasets import Dataset

from sgvl.common.errors import (
    InputError,
    Unavailable,
    Unreachable,
    nearest,
    need_known,
    raise_any,
)
from sgvl.common.files import write_csv
from sgvl.common.paths import plain_name
from sgvl.common.processes import mapping
from sgvl.common.registry import id_of, options_of
from sgvl.common.types import type_problems
from sgvl.data import Sample, store
from sgvl.data.cases import Cases, cases_of
from sgvl.data.images import thumbnail
from sgvl.experiments import ability, controls, inversion, judging, squares
from sgvl.judges import Judge, ask_all, check_judges, make_judge
from sgvl.judges.ask import time_spent
from sgvl.judges.base import PROTOCOL, SpeakingJudge
from sgvl.judges.systems import expanded
from sgvl.policies.policy import Policy, load_all
from sgvl.run import why_unavailable
from sgvl.scores import metrics
from sgvl.text.verdict import PARSERS, UNPARSEABLE, parse

ROLES = ("bench", "content", "own")  # whose sets can demand how judges are asked
DRAWN_FOLLOWING = ("following_neutral", "following_harmful")
FOLLOWING = (*DRAWN_FOLLOWING, "policyshift")
# The columns of each frame, also where no judge was asked.
FRAMES = {
    "levels": [*judging.COLUMNS, "judge"],
    "controls": ["id", "pair", "policy", "label", "no_picture", "no_policy", "judge"],
    "content": [*judging.COLUMNS, "judge"],
    **dict.fromkeys(("own", *FOLLOWING), [*judging.OWN, "judge"]),
    "inversion": [
        *("id", "policy", "label", "verdict", "inverted_label", "inverted_verdict", "judge")
    ],
    "squares": squares.COLUMNS,
    "general": [*ability.QUESTIONS, "judge"],
    "naming": [*ability.THINGS, "judge"],
}
JUDGES = [
    *("judge", "name", "reads_policy", "reads_tags", "prefix_sharing", "asked_about", "model"),
    *("requests", "seconds"),  # answers whose asking was timed, and how long it took
]
NOT_ASKED = ["judge", "name", "reason"]
REPLIES = 18  # shown as examples: six pictures for three judges
# Columns of numbers and of true and false; all others hold text, whatever it looks like.
NO_TEXT = {
    "p_unsafe": float,
    **dict.fromkeys(("right", "unparseable", "reads_policy", "reads_tags"), bool),
    **{"requests": int, "seconds": float},
}


class TestSets(NamedTuple):
    """The test sets of a run, read once for all judges; None or empty for one that is left out."""

    bench: Dataset  # pairs, judged under every level
    content: Dataset | None  # pictures by category under one policy
    own: Dataset | None  # rows with policies of their own
    following: dict[str, Dataset]  # policy-following sets by the name of their frame
    questions: list[Dataset]  # questions of general ability


def read_sets(
    folder: Path,
    bench: str = "safeeditbench",
    content: str = "unsafebench",
    own: str = "llavaguard_test",
    following: Sequence[str] = DRAWN_FOLLOWING,
    questions: Sequence[str] = ("general",),
    pairs: int = 0,
    rows: int = 0,
) -> TestSets:
    """Read the test sets, without the rows whose picture cannot be judged.

    Parameters
    ----------
    folder : the data folder of a run
    bench, content, own, following, questions : which saved set plays which role; "" or an empty
        list leaves a role out, and so does a set that cannot be had, ``bench`` apart
    pairs : how many pairs of ``bench``, evenly spread (pictures, where there are no pairs)
    rows : how many rows of each other set, evenly spread; 0 means all, here and for pairs

    Raises
    ------
    InputError
        For a set that is not there, with the nearest name, and for more pairs than there are.
    """
    for name in following:
        need_known("following: no policy-following set", name, FOLLOWING)

    def some(name: str) -> Dataset | None:
        if not name:
            return None
        try:
            usable = store.usable(store.read(name, folder))
        except Unavailable:
            return None  # the tables say so
        if rows and name in following and not store.has_tags(usable):  # whole pictures
            pictures = len(set(usable["pair"]))
            return store.some_pairs(usable, max(1, rows * pictures // len(usable)))
        # Drawn rows come in pairs; published ones do not, and may be odd in number.
        group = 2 if rows and store.has_tags(usable) else 1
        return store.take_evenly(usable, rows, group)

    pictures = store.some_pairs(store.usable(store.read(bench, folder)), pairs)
    return TestSets(
        pictures,
        some(content),
        some(own),
        {name: some(name) for name in following},
        [one for one in map(some, questions) if one is not None],
    )


class Panel(NamedTuple):
    """The judges of one or several panels, and everything that they answered."""

    judges: pd.DataFrame  # the columns of JUDGES
    frames: dict[str, pd.DataFrame]
    not_asked: pd.DataFrame = pd.DataFrame(columns=NOT_ASKED)  # judges that cannot be had, and why

    def asked_everything(self) -> list[str]:
        """Return the ids of the judges that were asked about every set."""
        return list(self.judges.query("asked_about == 'everything'")["judge"])

    def ceiling(self) -> str | None:
        """Return the id of the first judge that reads exact tags; None if there is none."""
        return next(iter(self.judges.query("reads_tags")["judge"]), None)

    @property
    def names(self) -> dict[str, str]:
        """The name to print for each judge, by id."""
        return dict(zip(self.judges["judge"], self.judges["name"], strict=True))


def ask_panel(
    judges: Sequence[dict],
    level_judges: Sequence[dict],
    sets: TestSets,
    policies: Sequence[str],
    folder: Path,
    worker: tuple[int, int] = (0, 1),
    protocols: Mapping[str, dict] = MappingProxyType({}),
    processes: int = 1,
    **about,
) -> Panel:
    """Ask every judge about every set; one judge is in the memory of a process at a time.

    A judge whose model comes from a unit that is unavailable is not asked, nor is one whose spec
    says ``optional: true`` and that cannot be had: a gated model, or a server that does not run.

    Parameters
    ----------
    judges, level_judges : specs; the latter are asked about ``sets.bench`` alone
    policies : names or paths for ``sets.bench``; none means every level, or all that the set has
    folder : where answers are stored; what it holds is not asked again
    worker : (k, n): number k, from 0, of n workers that share the pictures. The frames of one of
        several workers hold its share.
    protocols : how judges that speak are asked about the set of a role, where it is not in their
        own way: options by role, as ``check_protocols`` takes them
    processes : judges that are asked at the same time, each in a process with its share of the
        cores
    about : further arguments of ``ask_judge``

    Raises
    ------
    InputError
        For wrong specs, all at once, before a model loads; and as ``ask_all`` does.
    """
    check_judges([*judges, *level_judges])
    panel = [(spec, True) for spec in judges] + [(spec, False) for spec in level_judges]
    panel = [(options_of(expanded(spec)), whole) for spec, whole in panel]
    cases = cases_of(sets.bench, policies)
    demanded = dict(protocols.get("bench") or {})
    raise_any(_unreadable([spec for spec, _ in panel], demanded, cases.distinct()))
    one = partial(
        _ask_one, cases=cases, sets=sets, protocols=dict(protocols), folder=folder, worker=worker,
        about=about,
    )  # fmt: skip
    with mapping(processes) as run:
        asked = list(run(one, panel))
    answered = [part for part in asked if isinstance(part, Asked)]
    for part in answered:
        if part.warning:
            warnings.warn(part.warning, stacklevel=2)
    missing = [part for part in asked if not isinstance(part, Asked)]
    rows = pd.DataFrame([part.row for part in answered], columns=JUDGES)
    frames = joined(part.frames for part in answered)
    return Panel(rows, frames, pd.DataFrame(missing, columns=NOT_ASKED))


class Asked(NamedTuple):
    """One judge that was asked: its row in the table of judges, its frames, and a warning."""

    row: tuple
    frames: dict[str, pd.DataFrame]
    warning: str


def _ask_one(job: tuple[dict, bool], **how) -> Asked | tuple[str, str, str]:
    """Ask a judge, (spec, whether about everything); the columns of NOT_ASKED if it is not had."""
    spec, whole = job
    id = id_of(spec)
    try:
        return _answers(_judge(spec), spec, whole, **how)
    except Unavailable as error:
        reason = str(error)
    except Unreachable as error:
        if not spec.get("optional"):
            raise
        print(f"{id}: {error}")
        reason = "no server answers at its `url`"
    return id, spec.get("name", id), reason


def _answers(
    judge: Judge, spec: dict, whole: bool, cases: Cases, sets: TestSets, protocols, folder, worker,
    about,
) -> Asked:  # fmt: skip
    samples = store.samples(sets.bench)
    ask = _asks(judge, protocols, folder=folder, worker=worker)
    if hasattr(judge, "endpoint"):
        extent = f"{len(samples)} pictures under {len(cases.distinct())} policies"
        print(f"{judge.name}: {extent}, {len(cases.policies)} requests less what is stored")
    frames = {"levels": judging.under_policies(ask["bench"], cases, samples)}
    if whole:
        frames |= ask_judge(judge, ask, sets, cases, samples, **about)
    warning = why_unparseable(ask["bench"].args[0], frames["levels"])
    frames = {name: frame.assign(judge=judge.id) for name, frame in frames.items()}
    spent = time_spent({way.args[0] for way in ask.values()}, folder)
    reads = judge.reads_policy, judge.reads_tags, judge.prefix_sharing
    extent = "everything" if whole else "levels"
    row = judge.id, judge.name, *reads, extent, spec.get("model", ""), *spent
    return Asked(row, frames, warning)


def _unreadable(specs: Sequence[dict], demanded: dict, policies: Sequence[Policy]) -> Iterator[str]:
    """Yield the judges that are to read, in the brief form, policies of text alone."""
    texts = sorted({policy.name for policy in policies if policy.default is None})
    for spec in specs if texts else []:
        brief = (spec | demanded).get("policy_form", "brief") == "brief"
        if spec["kind"] in ("chat", "served") and brief:
            unread = f"{', '.join(texts)}: text without rules; set policy_form: full"
            yield f"judge {id_of(spec)}: {unread}"


def why_unparseable(judge: Judge, answers: pd.DataFrame, share: float = 0.2) -> str:
    """Return an unparseable reply and what other parsers read; "" unless over a share are so."""
    replies = list(answers.loc[answers["verdict"] == UNPARSEABLE, "reply"].dropna())
    if not isinstance(judge, SpeakingJudge) or len(replies) <= share * len(answers):
        return ""
    others = [name for name in PARSERS if not name.startswith(("released", judge.parser))]
    reads = {name: sum(parse(reply, name).reason is None for reply in replies) for name in others}
    counts = ", ".join(f"{name} {n}" for name, n in reads.items() if n)
    advice = (
        f"Of them, other parsers read: {counts}. Choose the `parser` that fits, or another "
        "`prompt`, in the judge's options; on a command line, --set parser=NAME"
        if counts
        else "No other parser reads one of them; try another `prompt` in the judge's options"
    )
    return (
        f"{judge.name}: {len(replies)} of {len(answers)} replies have no verdict that the parser "
        f"{judge.parser!r} reads, such as {replies[0][-200:]!r}. They count as wrong. {advice}"
    )


def _judge(spec: dict) -> Judge:
    """Make a judge; raise Unavailable for one that is left out."""
    if reason := why_unavailable(str(spec.get("model", ""))):
        raise Unavailable(reason)
    try:
        judge = make_judge(spec)
        _ = judge.prefix_sharing  # proves itself on its own model
        return judge
    except InputError as error:
        raise Unavailable(error.problems) if spec.get("optional") else error from None


def check_panel(panel: str) -> None:
    """Check the name of a panel's folder. Raises InputError for one that is no plain name."""
    if panel:
        plain_name("panel", panel)


def check_protocols(protocols: Mapping[str, dict]) -> None:
    """Check the options by which judges are asked about the sets of roles.

    Raises InputError with all problems: for another role than bench, content and own, for another
    option than those of ``judges.base.PROTOCOL``, and for values of another type.
    """
    problems = []
    for role, options in protocols.items():
        where = f"protocols: {role}"
        if role not in ROLES:
            problems.append(f"{where}: no such role; {nearest(role, ROLES)}")
        elif not isinstance(options, dict):
            problems.append(f"{where}: {options!r}; write options of judges, such as prompt: word")
        else:
            unknown = [name for name in options if name not in PROTOCOL]
            problems += [f"{where}: {name!r}: {nearest(str(name), PROTOCOL)}" for name in unknown]
            types = get_type_hints(SpeakingJudge.__init__, include_extras=True)
            problems += type_problems(f"{where}:", types, options)
    raise_any(problems)


def _asks(judge: Judge, protocols: Mapping[str, dict], **where) -> dict[str, ability.Ask]:
    """Return what sends cases to a judge, for each role in the way that its set demands.

    The key "" holds the judge's own way.
    """
    ways = {"": judge}
    for role in ROLES:
        protocol = protocols.get(role) if isinstance(judge, SpeakingJudge) else None
        ways[role] = judge.asked(**protocol) if protocol else judge
    return {role: partial(ask_all, way, timed=True, **where) for role, way in ways.items()}


def ask_judge(
    judge: Judge,
    ask: Mapping[str, ability.Ask],
    sets: TestSets,
    cases: Cases,
    samples: Sequence[Sample],
    convention: str = "vlmevalkit",
    single: int = 4,
    described: int = 0,
    blind_controls: bool = False,
    drawn_squares: Sequence[squares.Square] = (),
) -> dict[str, pd.DataFrame]:
    """Ask one judge everything but ``levels``; returns frames without the column judge.

    Parameters
    ----------
    ask : what sends cases to the judge, as ``partial(ask_all, judge, folder=...)`` does, by the
        role of their set; "" for all others
    cases, samples : of ``sets.bench``
    convention : how published questions are put and read
    single : pictures of one thing that come under each level and its inversion
    described : pictures, evenly spread, that are described and judged on half of the input; 0: all
    blind_controls : asked about drawn pictures always, about others only if this is true, because
        each picture then takes one more request
    drawn_squares : asked about as well
    """
    drawn = store.has_tags(sets.bench)
    frames = {}
    chosen = store.even_indices(len(samples), min(described, len(samples)))
    some = store.Lazy(len(chosen), lambda k: samples[chosen[k]])
    # Tags would tell a judge what the blank picture hides.
    if not judge.reads_tags and (drawn or blind_controls):
        frames["controls"] = controls.blind_answers(ask["bench"], some, cases)
    if sets.content:
        frames["content"] = judging.by_category(ask["content"], sets.content)
        if alone := judging.alone(sets.content, single):
            frames["inversion"] = inversion.ask_both_ways(ask["bench"], alone, load_all())
    for name, rows in {"own": sets.own, **sets.following}.items():
        if rows:
            frames[name] = judging.under_own_policies(ask["own" if name == "own" else ""], rows)
    if drawn_squares:
        frames["squares"] = squares.ask_squares(ask[""], drawn_squares)
    if judge.takes_requests:
        answers = [ability.answering(ask[""], rows, convention) for rows in sets.questions]
        if answers:
            frames["general"] = pd.concat(answers, ignore_index=True)
        if drawn:
            frames["naming"] = ability.naming(ask[""], some)
    return frames


def joined(frames: Iterable[dict[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """Join the frames of several judges by their names; one that no judge has is empty."""
    frames, whole = list(frames), {}
    for name, columns in FRAMES.items():
        own = [parts[name] for parts in frames if name in parts]
        whole[name] = pd.concat(own, ignore_index=True) if own else pd.DataFrame(columns=columns)
    return whole


def most_divided(panel: Panel, answers: pd.DataFrame, bench: Dataset) -> list[dict]:
    """Return the cases that divide the judges most, as ``figures.show_replies`` takes them.

    ``answers`` is the frame ``levels``. They are six pictures, fewer where many judges reply. Real
    pictures are blurred.
    """
    reasons = answers["reply"].fillna(answers["rationale"]).fillna("no reason given")
    answers = answers.assign(reply=reasons, judge=answers["judge"].map(panel.names))
    examples = []
    for id, policy in metrics.most_divided(answers, max(1, REPLIES // answers["judge"].nunique())):
        own = answers[(answers["id"] == id) & (answers["policy"] == policy)]
        picture = bench.select([list(bench["id"]).index(id)])
        image = store.samples(picture)[0].image
        examples.append(
            {
                "image": image if store.has_tags(bench) else thumbnail(image, 320),
                "title": f"{id} under {policy}: {own['label'].iloc[0]}",
                "replies": own[["policy", "judge", "verdict", "label", "reply"]].to_dict("records"),
            }
        )
    return examples


def write(panel: Panel, folder: Path) -> None:
    """Write the judges, those that were not asked, and every frame as CSV files into ``folder``.

    Raises Unavailable, after writing, if no judge of the panel could be asked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"judges": panel.judges, "not_asked": panel.not_asked, **panel.frames}
    for name, frame in tables.items():
        write_csv(frame, folder / f"{name}.csv")
    if panel.judges.empty:
        raise Unavailable(f"{row.name}: {row.reason}" for row in panel.not_asked.itertuples(False))


def read(folder: Path, panels: Sequence[str] = ()) -> Panel:
    """Read what ``write`` wrote: the panels named, in subfolders, or else ``folder`` itself.

    Raises InputError for a file that is missing, with the unit that makes it, and for a judge that
    is in two panels.
    """
    parts = [_read_panel(folder / name, name) for name in panels] or [_read_panel(folder)]
    judges = pd.concat([part.judges for part in parts], ignore_index=True)
    not_asked = pd.concat([part.not_asked for part in parts], ignore_index=True)
    ids = pd.concat([judges["judge"], not_asked["judge"]])
    if twice := sorted(ids[ids.duplicated()]):
        raise InputError(f"{folder}: judge {id} is in two panels; name it once" for id in twice)
    return Panel(judges, joined(part.frames for part in parts), not_asked)


def _read_panel(folder: Path, name: str = "") -> Panel:
    files = {stem: folder / f"{stem}.csv" for stem in ("judges", "not_asked", *FRAMES)}
    if missing := [file.name for file in files.values() if not file.is_file()]:
        unit = f"05_benchmark.{name}" if name else "notebook 05_benchmark"
        raise InputError(f"{folder} lacks {missing[0]}; run {unit} first")
    tables = {stem: _read_csv(file) for stem, file in files.items()}
    return Panel(tables.pop("judges"), frames=tables, not_asked=tables.pop("not_asked"))


def _read_csv(file: Path) -> pd.DataFrame:
    """Read a table as it was written: an id 007, a reply "NA" and an empty text stay texts."""
    return pd.read_csv(
        file,
        dtype=defaultdict(lambda: str, NO_TEXT),
        keep_default_na=False,
        na_values={"p_unsafe": [""]},
    )
