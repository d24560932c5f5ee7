"""Judge the set of a role, and join the answers with what is known of its rows.

``ask`` sends cases to a judge, as ``partial(ask_all, judge, folder=...)`` does. What is returned is
a judgement frame without the column judge. Its column ``default`` is what a policy with rules says
of what it does not name, and empty for a policy of text alone.
"""

from collections.abc import Iterable, Sequence

import pandas as pd
from datasets import Dataset

from sgvl.data import Sample, store
from sgvl.data.cases import Cases
from sgvl.experiments.ability import Ask
from sgvl.judges import Judge, Judgement
from sgvl.judges.base import SpeakingJudge, default_prompt
from sgvl.policies.policy import Policy, load
from sgvl.text.verdict import PARSERS, UNPARSEABLE, parse

COLUMNS = [
    *("id", "policy", "verdict", "p_unsafe", "rationale", "reply"),
    *("pair", "label", "default"),
]
OWN = [*COLUMNS, "category"]  # of rows that bring their policies
DRAWINGS_ONLY = (
    "the nano model knows drawings only: its verdicts on photographs mean nothing. Name another "
    "model for them"
)
NEEDS_RULES = (
    "it reads rules, not sentences, and this policy has no rules: its verdicts under it mean "
    "nothing. Add rules to its header, or name another model"
)


def under_policies(ask: Ask, cases: Cases, samples: Sequence[Sample]) -> pd.DataFrame:
    """Ask about the cases of a set."""
    answers = _frame(ask(cases.with_pictures(samples)))
    table = cases.table.assign(default=_defaults(cases.policies))
    return answers.merge(table, on=["id", "policy"])


def by_category(ask: Ask, rows: Dataset) -> pd.DataFrame:
    """Ask about pictures under one policy; their category stands in the column policy."""
    policies = _policies(rows)
    answers = _frame(ask(store.policy_cases(rows, policies)))
    about = rows.select_columns(["id", "category"]).to_pandas()
    about = about.assign(label=store.labels(rows), default=_defaults(policies))
    answers = answers.drop(columns="policy").merge(about, on="id")
    return answers.rename(columns={"category": "policy"}).assign(pair=answers["id"])


def alone(content: Dataset, wanted: int) -> Sequence[Sample]:
    """Return the first drawn pictures of one thing in its place."""
    tags = content["tags"] if store.has_tags(content) else []
    places = [place for place, own in enumerate(tags) if len(set(own)) == 2]
    return store.samples(content.select(places[:wanted]))


def _policies(rows: Dataset) -> list[Policy]:
    """Return the policy of each row: the drawn set names one that ships with the package."""
    names = set(rows["policy"])
    if len(names) == 1 and not next(iter(names)).startswith("{"):
        return [load(names.pop())] * len(rows)
    return store.policies(rows)


def under_own_policies(ask: Ask, rows: Dataset) -> pd.DataFrame:
    """Ask about rows that bring their policies; all count as one policy, named by the set."""
    answers = _frame(ask(store.policy_cases(rows)))
    policies = store.policies(rows)
    about = rows.select_columns(["id", "pair", "category"]).to_pandas()
    about = about.assign(policy=rows["source"][0], label=store.labels(rows))
    about = about.assign(default=_defaults(policies), own_policy=[p.name for p in policies])
    return (
        answers.rename(columns={"policy": "own_policy"})
        .merge(about, on=["id", "own_policy"])
        .drop(columns="own_policy")
    )


def is_nano(spec: dict) -> bool:
    """Check whether a spec names the nano model, or one that was trained from it here."""
    return spec["kind"] == "chat" and default_prompt(str(spec.get("model", "nano"))) == "reason"


def notes_on_nano(spec: dict, policies: Sequence[Policy], drawn: bool) -> list[str]:
    """Return what the nano model cannot judge of these pictures and policies; of others nothing."""
    if not is_nano(spec):
        return []
    notes = [] if drawn else [DRAWINGS_ONLY]
    return notes + ([] if all(policy.default for policy in policies) else [NEEDS_RULES])


def why_unparseable(judge: Judge, answers: pd.DataFrame, share: float = 0.2) -> str:
    """Return an unparseable reply and what other parsers read; "" unless over a share are so."""
    replies = list(answers.loc[answers["verdict"] == UNPARSEABLE, "reply"].dropna())
    if not isinstance(judge, SpeakingJudge) or len(replies) <= share * len(answers):
        return ""
    example = next(filter(None, replies), "")  # a refused request leaves none
    others = [name for name in PARSERS if not name.startswith(("released", judge.parser))]
    reads = {name: sum(parse(reply, name).reason is None for reply in replies) for name in others}
    counts = ", ".join(f"{name} {n}" for name, n in reads.items() if n)
    advice = (
        f"Of them, other parsers read: {counts}. Choose the `parser` that fits, or another "
        "`prompt`, in the judge's options; on a command line, --set parser=NAME"
        if counts
        else "No other parser reads one of them; raise `max_new_tokens` if they are cut, or try "
        "another `prompt`, in the judge's options"
    )
    return (
        f"{judge.name}: {len(replies)} of {len(answers)} replies have no verdict that the parser "
        f"{judge.parser!r} reads, such as {example[-200:]!r}. They count as wrong. {advice}"
    )


def _defaults(policies: Iterable[Policy]) -> list[str]:
    return [policy.default or "" for policy in policies]


def _frame(answers: list[dict]) -> pd.DataFrame:
    """Make a table of answers; one of several workers may have none."""
    return pd.DataFrame(answers, columns=["id", "policy", *Judgement._fields])
