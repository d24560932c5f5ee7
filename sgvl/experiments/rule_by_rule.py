"""Judging rule by rule: a question for each rule of a policy, combined by the policy's precedence.

After an edit, only the rules that it touches are asked about again, and no other rule's answer can
move. A policy that prohibits by default, an allow-list, cannot be divided: there, a caption names
the things and the place of the picture, once for all versions, and the rules are applied to these.
A caption has no probability, so such verdicts have no P(unsafe).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sgvl.common.errors import InputError
from sgvl.judges import Judge
from sgvl.policies.apart import rules_apart
from sgvl.policies.concepts import PLACES, concepts
from sgvl.policies.policy import Policy
from sgvl.scores.rationale import rules_violated
from sgvl.text.prompts import CAPTION
from sgvl.text.verdict import SAFE, UNPARSEABLE, UNSAFE
from sgvl.text.words import words

KINDS = ("chat", "instructblip", "served", "rule")  # of judges that read a rule, and can caption


def check(kind: str, policies: Iterable[Policy]) -> None:
    """Raise InputError for a kind of judge, or a policy, that cannot be judged rule by rule."""
    if kind not in KINDS:
        raise InputError(f"a judge of the kind {kind} cannot go rule by rule: {', '.join(KINDS)}")
    _rules([policy for policy in policies if not _is_list(policy)])


def questions(judge: Judge, policies: Iterable[Policy]) -> list[list]:
    """Return what to ask about each picture: the rules, each once, and then a caption, or none."""
    policies = list(policies)
    captions = [] if judge.reads_tags or not any(map(_is_list, policies)) else [CAPTION[0]]
    return [list(_rules(policies).values()), captions]


def _is_list(policy: Policy) -> bool:
    return policy.default == "prohibited"


def _rules(policies: Iterable[Policy]) -> dict[str, Policy]:
    """Return the rules of policies that are no allow-lists, by digest."""
    parts = [rules_apart(policy) for policy in policies if not _is_list(policy)]
    return {rule.digest: rule for rules in parts for rule in rules}


def combine(
    policies: Sequence[Policy],
    pictures: Mapping[str, Iterable[str]],
    answers: Iterator[dict],
    captions: Iterator[dict],
) -> list[dict]:
    """Return an answer for each picture under each policy.

    Parameters
    ----------
    pictures : tags by id, of all pictures in order; none where the judge may not read them
    answers, captions : to both parts of ``questions``, picture by picture, as ``ask_all`` returns
        them; as many are taken as belong to these pictures

    Returns
    -------
    list of dict
        What ``ask_all`` returns, and ``broken``: the rules that the picture breaks, named as in
        ``scores.rationale``. It is unsafe if a rule is broken, else unparseable if a reply is. The
        rationale has the text of each broken rule and the judge's reason.
    """
    rules = _rules(policies)
    parts = [[] if _is_list(policy) else rules_apart(policy) for policy in policies]
    given = []
    for id, tags in pictures.items():
        by_rule = {digest: next(answers) for digest in rules}
        named = {"reply": " ".join(tags)} if tags else {}
        if any(map(_is_list, policies)) and not tags:
            named = next(captions, {"error": "the picture has no tags"})
        for policy, own in zip(policies, parts, strict=True):
            said = [(rule, by_rule[rule.digest]) for rule in own]
            answer = _by_names(policy, named) if _is_list(policy) else _by_rules(said)
            given.append({"id": id, "policy": policy.name} | answer)
    return given


def _by_names(policy: Policy, caption: Mapping) -> dict:
    """Apply an allow-list to what a caption names."""
    if "error" in caption:
        return {"error": caption["error"]}
    named = dict.fromkeys(words(caption["reply"]))
    tags = [word for word in named if word in concepts()] + [w for w in named if w in PLACES][:1]
    ruling = policy.label(tags)
    return {
        "verdict": ruling.label,
        "p_unsafe": None,
        "rationale": ruling.explain().rpartition(" Answer: ")[0] or "Nothing is named.",
        "reply": caption["reply"],
        "broken": sorted(rules_violated(tags, policy)),
    }


def _by_rules(said: Sequence[tuple[Policy, dict]]) -> dict:
    """Combine the answers under each rule."""
    answers = [answer for _, answer in said]
    if errors := [answer["error"] for answer in answers if "error" in answer]:
        return {"error": errors[0]}
    broken = [(rule.rules[0], answer) for rule, answer in said if answer["verdict"] == UNSAFE]
    reasons = [f"{rule.text} {answer['rationale'] or ''}".strip() for rule, answer in broken]
    unread = [answer for answer in answers if answer["verdict"] == UNPARSEABLE]
    p_unsafe = [0.0, *(answer["p_unsafe"] for answer in answers)]
    deciding = [answer for _, answer in broken] or unread or answers
    return {
        "verdict": UNSAFE if broken else UNPARSEABLE if unread else SAFE,
        "p_unsafe": None if None in p_unsafe else max(p_unsafe),
        "rationale": " ".join(reasons) or (None if unread else "No rule is broken."),
        "reply": "\n".join(answer["reply"] for answer in deciding if answer["reply"]) or None,
        "broken": [", ".join(rule.tags) for rule, _ in broken],
    }
