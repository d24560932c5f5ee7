"""A policy as rules that can be judged apart, each a policy of its own.

A scene is unsafe if one thing in it is prohibited. So a policy that permits by default prohibits
what its rules prohibit, each with "all else permitted". A rule about a thing overrides one about
its category: it goes with the rule that it overrides. A policy that prohibits by default cannot be
divided in this way, because no rule alone knows what another one permits.

>>> from sgvl.policies.brief import parse_brief
>>> text = "weapons prohibited; knife permitted except school; dog prohibited; all else permitted"
>>> [rule.render("brief") for rule in rules_apart(parse_brief(text))]
['weapons prohibited; knife permitted except school; all else permitted.', \
'knife permitted except school; all else permitted.', \
'dog prohibited; all else permitted.']
"""

from sgvl.common.errors import InputError
from sgvl.policies.concepts import category_of
from sgvl.policies.policy import Policy
from sgvl.policies.rules import Rule


def rules_apart(policy: Policy) -> list[Policy]:
    """Return a policy for each rule that can prohibit something; the others need no question.

    They have neither name nor title of the policy, so that a rule which an edit leaves alone is the
    same policy before and after. Raises InputError for a policy without rules, and for one that
    prohibits by default.
    """
    if policy.default != "permitted":
        what = "prohibits by default" if policy.default else "is text alone"
        raise InputError(f"policy {policy.name} {what}; its rules cannot be judged apart")
    # No judge is told of a rule's severity.
    plain = [rule.model_copy(update={"severity": None}) for rule in policy.rules]
    alone = [[rule, *_overriding(plain, rule)] for rule in plain]
    return [_policy(rules) for rules in alone if any(r.prohibit or r.places for r in rules)]


def _overriding(rules: list[Rule], rule: Rule) -> list[Rule]:
    """Return what other rules say of things whose category is one of the rule's tags."""
    parts = [
        (other, [tag for tag in other.tags if category_of(tag) in rule.tags])
        for other in rules
        if other is not rule
    ]
    key = {"prohibited": "prohibit", "permitted": "permit"}
    return [other.model_copy(update={key[other.status]: tags}) for other, tags in parts if tags]


def _policy(rules: list[Rule]) -> Policy:
    text = " ".join([*(rule.text for rule in rules), "All else is permitted."])
    name = "-".join(rules[0].tags)[:80]
    return Policy(
        name=name, title="Rule", use="reference", default="permitted", rules=rules, text=text
    )
