"""What 05_benchmark asks every judge: one place asks, everything later reads.

The answers are frames, which ``benchmark_files`` describes and stores.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, get_type_hints

import pandas as pd
from datasets import Dataset

from sgvl.common.errors import InputError, Unavailable, Unreachable, nearest, need_known, raise_any
from sgvl.common.paths import plain_name
from sgvl.common.processes import mapping
from sgvl.common.progress import counted
from sgvl.common.registry import id_of, options_of
from sgvl.common.types import type_problems
from sgvl.data import Sample, store
from sgvl.data.cases import Cases, cases_of
from sgvl.data.images import thumbnail
from sgvl.experiments import ability, controls, inversion, judging, squares
from sgvl.experiments.benchmark_files import (
    DRAWN_FOLLOWING,
    FOLLOWING,
    JUDGES,
    NOT_ASKED,
    Panel,
    joined,
)
from sgvl.judges import Judge, ask_all, check_judges, make_judge
from sgvl.judges.ask import time_spent
from sgvl.judges.base import PROTOCOL, SpeakingJudge
from sgvl.judges.systems import expanded
from sgvl.policies.policy import Policy, load_all
from sgvl.run import why_unavailable
from sgvl.scores import metrics

ROLES = ("bench", "content", "own")  # whose sets can demand how judges are asked
REPLIES = 18  # shown as examples: six pictures for three judges


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

    def some(role: str, name: str) -> Dataset | None:
        if not name:
            return None
        try:
            usable = store.usable(store.read(name, folder))
        except Unavailable:
            return None  # the tables say so
        except InputError as error:
            raise InputError(f"{role}: {error}; an empty `{role}` leaves it out") from None
        if rows and name in following and not store.has_tags(usable):  # whole pictures
            pictures = len(set(usable["pair"]))
            return store.some_pairs(usable, max(1, rows * pictures // len(usable)))
        # Drawn rows come in pairs; published ones do not, and may be odd in number.
        group = 2 if rows and store.has_tags(usable) else 1
        return store.take_evenly(usable, rows, group)

    pictures = store.some_pairs(store.usable(store.read(bench, folder)), pairs)
    return TestSets(
        pictures,
        some("content", content),
        some("own", own),
        {name: some("following", name) for name in following},
        [one for name in questions if (one := some("questions", name)) is not None],
    )


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
        for note in part.notes:
            warnings.warn(note, stacklevel=2)
    missing = [part for part in asked if not isinstance(part, Asked)]
    rows = pd.DataFrame([part.row for part in answered], columns=JUDGES)
    frames = joined(part.frames for part in answered)
    return Panel(rows, frames, pd.DataFrame(missing, columns=NOT_ASKED))


class Asked(NamedTuple):
    """One judge that was asked: its row in the table of judges, its frames, and warnings."""

    row: tuple
    frames: dict[str, pd.DataFrame]
    notes: list[str]


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
        n = len(cases.distinct())
        extent = (
            f"{counted(len(samples), 'picture')} under {n} {'policy' if n == 1 else 'policies'}"
        )
        most = counted(len(cases.policies), "request")
        print(f"{judge.name}: {extent}, {most}, fewer where answers are stored")
    frames = {"levels": judging.under_policies(ask["bench"], cases, samples)}
    if whole:
        frames |= ask_judge(judge, ask, sets, cases, samples, **about)
    notes = judging.notes_on_nano(spec, cases.distinct(), store.has_tags(sets.bench))
    notes = [f"{judge.name}: {note}" for note in notes]
    if why := judging.why_unparseable(ask["bench"].args[0], frames["levels"]):
        notes.append(why)
    frames = {name: frame.assign(judge=judge.id) for name, frame in frames.items()}
    spent = time_spent({way.args[0] for way in ask.values()}, folder)
    reads = judge.reads_policy, judge.reads_tags, judge.prefix_sharing
    extent = "everything" if whole else "levels"
    row = judge.id, judge.name, *reads, extent, spec.get("model", ""), *spent
    return Asked(row, frames, notes)


def _unreadable(specs: Sequence[dict], demanded: dict, policies: Sequence[Policy]) -> Iterator[str]:
    """Yield the judges that are to read, in the brief form, policies of text alone."""
    texts = sorted({policy.name for policy in policies if policy.default is None})
    for spec in specs if texts else []:
        brief = (spec | demanded).get("policy_form", "brief") == "brief"
        if spec["kind"] in ("chat", "served") and brief:
            todo = "set policy_form: full"
            if judging.is_nano(spec):
                todo = "the nano model reads rules only. Add some to the header, or name another "
                todo += "model; on photographs name another in any case"
            yield f"judge {id_of(spec)}: {', '.join(texts)}: text without rules; {todo}"


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
