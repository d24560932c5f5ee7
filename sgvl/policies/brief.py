"""Parser of brief policies: the line that ``Policy.render("brief")`` writes, typed by a person.

    weapons, bomb prohibited except museum, news; dog permitted; all else prohibited.

Clauses are separated by semicolons or line breaks, tags and places by commas. Each clause becomes a
rule with the clause as its text. ``widgets/clauses.js`` is the same parser for a page without
Python; the browser tests compare the two.
"""

import re

from pydantic import ValidationError

from sgvl.common.errors import InputError, raise_any
from sgvl.policies.policy import Policy

LONGEST = 2000  # characters; L4, the longest shipped policy, has 400
FORMS = "`weapons prohibited except museum, news`, `dog permitted` or `all else permitted`"

_CLAUSE = re.compile(r"(.+?) (prohibited|permitted)(?: except (.+))?")


def parse_brief(text: str, name: str = "mine") -> Policy:
    """Parse the clauses of ``text`` into a policy.

    >>> policy = parse_brief("weapons prohibited except museum; all else permitted")
    >>> policy.label(["knife", "home"]).rule
    'weapons prohibited except museum'

    Raises InputError with every clause that cannot be parsed, each with the allowed form.
    """
    defaults, rules, problems = [], [], []
    for clause in _clauses(check_length(text)):
        match = _CLAUSE.fullmatch(clause)
        if not match:
            problems.append(f"{clause!r} is no clause; write {FORMS}")
        elif match[1] == "all else":
            defaults.append(match[2])
            if match[3]:
                problems.append(f"{clause!r}: the rest knows no exceptions; name a category")
        else:
            verb = {"prohibited": "prohibit", "permitted": "permit"}[match[2]]
            rules.append({verb: _split(match[1]), "except": _split(match[3] or ""), "text": clause})
    if len(defaults) != 1:
        problems.append("say once what holds for the rest: `all else permitted` or `prohibited`")
    raise_any(problems)
    try:
        return Policy(name=name, title=name, default=defaults[0], rules=rules)
    except ValidationError as error:
        raise InputError(_explain(e, rules) for e in error.errors()) from None


def check_length(text: str) -> str:
    """Return the text, or raise InputError if it is too long to be typed by hand."""
    if len(text) > LONGEST:
        raise InputError(f"a policy of {len(text)} characters; keep it under {LONGEST}")
    return text


def _clauses(text: str) -> list[str]:
    """Split into clauses in lower case, with single spaces, without full stops and empty ones."""
    clauses = (" ".join(part.lower().split()).strip(" .") for part in re.split(r"[;\n]", text))
    return [clause for clause in clauses if clause]


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _explain(error: dict, rules: list[dict]) -> str:
    clause = f"{rules[error['loc'][1]]['text']!r}: " if len(error["loc"]) > 1 else ""
    return clause + error["msg"].removeprefix("Value error, ")
