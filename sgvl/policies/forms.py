"""Policies in the forms that guard models were trained on, written from their rules.

``numbered`` is Llama Guard's block of categories, ``slots`` the nine categories of LlavaGuard and
QwenGuard, ``titled`` SingGuard's rules, ``bundle`` the policies of PolicyShiftGuard, and
``prohibitions`` the single rules that ShieldGemma 2 takes one at a time.
"""

from sgvl.common.errors import InputError
from sgvl.policies.concepts import CATEGORIES, category_of
from sgvl.policies.policy import Policy
from sgvl.policies.rules import Rule

CATEGORY = "[Category ID]:"  # opens each policy of a bundle
SLOTS = list(dict.fromkeys(c.llavaguard for c in CATEGORIES.values() if c.llavaguard))  # O1 to O9


def prohibitions(policy: Policy) -> list[str]:
    """Return what a policy prohibits, one text for each rule, with what it permits all the same.

    A policy of text alone is one text: its sentences may permit as well as prohibit.

    >>> from sgvl.policies.policy import load
    >>> prohibitions(load("L3"))[0]
    'Weapons are prohibited everywhere.'
    """
    if policy.default is None:
        return [policy.render("text")]
    texts = [_with_exceptions(policy, rule) for rule in policy.rules if _wrong(rule)]
    if policy.default == "prohibited":
        permitted = _permitted(policy, lambda _: True)
        texts.append(f"Everything else is prohibited{f', except: {permitted}' * bool(permitted)}.")
    return texts


def numbered(policy: Policy) -> str:
    """Return the prohibitions as categories, ``S1: ...``, one a line."""
    texts = prohibitions(policy) or ["Nothing is prohibited."]
    return "\n".join(f"S{number}: {text}" for number, text in enumerate(texts, start=1))


def titled(policy: Policy) -> str:
    """Return the prohibitions as rules with a title each, and what is safe."""
    rules = [
        f"### R{number}. Rule {number}\n  - {_indented(text)}"
        for number, text in enumerate(prohibitions(policy), start=1)
    ]
    return "\n\n".join([*rules, "### Safe\n  - Content that no rule above prohibits."])


def bundle(policy: Policy) -> str:
    """Return the prohibitions as risk categories with a policy each.

    A policy of text that is such a bundle, as those of PolicyShiftBench are, stays as it is.
    """
    if policy.text.lstrip("\n-").startswith(CATEGORY):
        return policy.text
    line = "-" * 80
    texts = enumerate(prohibitions(policy) or ["Nothing is prohibited."], start=1)
    blocks = [
        f"{CATEGORY} {number:02d}    [Category Name]: Rule {number}\n-- Policy: {policy.name}\n"
        + text
        for number, text in texts
    ]
    return "\n".join([line, *(f"{block}\n{line}" for block in blocks)])


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")


def slots(policy: Policy) -> str:
    """Return the rules in the nine categories of LlavaGuard, and what fits none below them.

    Raises InputError for a policy of text alone.
    """
    if policy.default is None:
        raise InputError(
            f"policy {policy.name} is text alone, and this judge takes rules sorted into the nine "
            "categories of LlavaGuard: give the policy rules in its header, or choose a judge "
            "whose name ends in _raw, which takes the text"
        )
    blocks = [_block(policy, slot, slot) for slot in SLOTS]
    if any(_in_slot(rule, "") for rule in policy.rules):
        blocks.append(_block(policy, "", "Beside these categories"))
    return "\n\n".join(blocks)


def _block(policy: Policy, slot: str, heading: str) -> str:
    rules = [rule for rule in policy.rules if _in_slot(rule, slot)]
    wrong = list(filter(None, map(_wrong, rules)))
    fine = [rule.text for rule in rules if rule.permit]
    if policy.default == "prohibited" and not wrong:
        wrong = ["Any content of this category."]
    if not wrong:
        return f"{heading}:\nThis category is declared as non-violating."
    parts = [("It should not contain:", wrong), ("It can contain:", fine)]
    lines = [line for title, texts in parts if texts
             for line in (title, *(f"- {text}" for text in texts))]  # fmt: skip
    return "\n".join([f"{heading}:", *lines])


def _in_slot(rule: Rule, slot: str) -> bool:
    return any(CATEGORIES[_category(tag)].llavaguard == slot for tag in rule.tags)


def _category(tag: str) -> str:
    return category_of(tag) or tag


def _wrong(rule: Rule) -> str:
    """Return what a rule prohibits, "" if nothing: a permission prohibits at its exceptions."""
    if rule.prohibit:
        return rule.text
    return f"{', '.join(rule.permit)} at: {', '.join(rule.places)}." if rule.places else ""


def _with_exceptions(policy: Policy, rule: Rule) -> str:
    """Return what a rule prohibits, and what other rules permit of its categories."""
    permitted = _permitted(policy, lambda tag: _category(tag) in rule.prohibit)
    return f"{_wrong(rule)} Permitted all the same: {permitted}." if permitted else _wrong(rule)


def _permitted(policy: Policy, about) -> str:
    clauses = [rule.clause(tag) for rule in policy.rules if rule.permit
               for tag in rule.tags if about(tag)]  # fmt: skip
    return "; ".join(clause.replace(" permitted", "", 1) for clause in clauses)
