"""A linter of policies: where the rules of a header and the sentences below it do not agree.

=========================  =======================================================================
check                      finding
=========================  =======================================================================
``never-fires``            a rule that decides about nothing in a set of scenes
``unmet-exception``        an exception that nothing in the set meets
``contradiction``          two rules of which one permits what the other prohibits, or words that
                           say the opposite of their rule
``sentence-without-rule``  a sentence that no rule stands for, a thing or a place in it included
``rule-without-sentence``  a rule or an exception that no sentence of the text speaks of
``divides``                a rule that annotators divide on
=========================  =======================================================================

Rules are compared exactly. Sentences are compared by their words: those of the vocabulary and of
the rules' own texts, in English, whatever their endings. A sentence that says neither what is
permitted nor what is prohibited is passed over, and so is one that says what holds for the rest.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import yaml

from sgvl.common.strict_yaml import Loader
from sgvl.policies.concepts import CATEGORIES, PLACES, category_of, concepts, in_category
from sgvl.policies.policy import Policy, file_of, load, parts_of
from sgvl.policies.rules import Rule

PERMIT = (
    r"permit(?:s|ted)?|allow(?:s|ed)?|welcome|may|fine|stays?|belongs?|safe|acceptable|okay|"
    r"goes|tolerated"
)
PROHIBIT = (
    r"prohibit(?:s|ed)?|forbid(?:s|den)?|bann?(?:s|ed)?|removed?|unsafe|disallowed|unacceptable|"
    r"violates?|violating|refused"
)
_NOT_PERMITTED = re.compile(
    rf"\b(?:not|never|cannot)(?: be)? (?:{PERMIT})\b|\b(?:may|must|should|can) (?:not|never)\b|"
    rf"\bno (?:\w+ ){{1,4}}?(?:are|is|may be) (?:{PERMIT})\b"
)
_NOT_PROHIBITED = re.compile(rf"\b(?:not|never|nothing is)(?: be)? (?:{PROHIBIT})\b")
_NOT = re.compile(r"\b(?:no|not|never|nothing|neither|nor|none|cannot)\b")
_REST = re.compile(
    r"\b(?:any|all|every|everything|anything|nothing|else|only|none|whatever|rest|other|"
    r"exceptions?)\b"
)
_NO_PLACE = re.compile(r"\b(?:everywhere|wherever|anywhere|included|neither|nor|exceptions?)\b")
_EXCEPT = re.compile(r"\b(?:except|unless|but|outside|save)\b(.*)", re.DOTALL)
_ITEM = re.compile(r"\s*(?:[-*•]|\d+[.)])\s")
_SENTENCE = re.compile(
    r"\S.*?(?:[.!?](?=\s|\Z)|(?=\n\s*\n|\n\s*(?:[-*•#]|\d+[.)])\s|\Z))", re.DOTALL
)
_VERB = {"prohibited": "prohibits", "permitted": "permits"}
_POLICY_WORDS = {
    *("image", "images", "picture", "pictures", "content", "people", "place", "shown", "shows")
}


class Finding(NamedTuple):
    """What one check found, and where."""

    file: Path
    line: int
    check: str  # its name in the table above
    message: str

    def __str__(self):
        return f"{self.file}:{self.line}: {self.check}: {self.message}"


class _Sentence(NamedTuple):
    line: int
    text: str
    words: frozenset[str]
    named: frozenset[str]  # tags in it
    places: frozenset[str]
    item: bool  # of a list


class _Ruled(NamedTuple):
    """A rule, its line, and the line of each of its exceptions."""

    rule: Rule
    line: int
    excepts: dict[str, int]


def lint(
    source: str | Path,
    scenes: Iterable[Sequence[str]] | None = None,
    divided: Iterable[Mapping] = (),
) -> list[Finding]:
    """Check a policy file with rules; return what is found by line. Text alone has no findings.

    Parameters
    ----------
    source : as ``load`` takes it
    scenes : the tags of each scene of a set; by default one thing at a place, for all of both
    divided : rows of the table ``clauses`` of ``sgvl.editing.blame``

    Raises
    ------
    InputError
        As ``load`` does.
    """
    file, policy = file_of(source), load(source)
    if policy.default is None:
        return []
    rules, sentences = _parsed(file.read_text(encoding="utf-8-sig"), policy)
    found = [
        *_unused(policy, rules, scenes),
        *_contradictions(rules),
        *_divided(policy, rules, divided),
    ]
    found += [*_rules_without(rules, sentences), *_sentences_without(policy, rules, sentences)]
    return sorted(Finding(file, *finding) for finding in found)


def _parsed(content: str, policy: Policy) -> tuple[list[_Ruled], list[_Sentence]]:
    head, header, text = parts_of(content)
    first = head.count("\n") + 2  # line of the header
    mapping = {key.value: value for key, value in yaml.compose(header, Loader).value}
    nodes = mapping["rules"].value if "rules" in mapping else []
    rules = []
    for rule, node in zip(policy.rules, nodes, strict=True):
        items = next((value.value for key, value in node.value if key.value == "except"), [])
        excepts = {item.value: first + item.start_mark.line for item in items}
        rules.append(_Ruled(rule, first + node.start_mark.line, excepts))
    start = content[: len(content) - len(text)].count("\n") + 1
    sentences = []
    for match in _SENTENCE.finditer(text):
        if match[0].startswith("#"):
            continue
        words, own = _words(match[0]), text.rfind("\n", 0, match.start()) + 1
        places = frozenset(p for p in PLACES if words & {p, f"{p}s"})
        line = start + text.count("\n", 0, match.start())
        item = bool(_ITEM.match(text[own:])) and not text[own : match.start()].strip()
        sentences.append(
            _Sentence(line, " ".join(match[0].split()), words, _named(words), places, item)
        )
    return rules, sentences


# -- words -----------------------------------------------------------------------------------------


def _words(text: str) -> frozenset[str]:
    """Return the words of a text in lower case; self-harm, and two words in a row, also as one."""
    words = [re.sub(r"[^\w]", "", word) for word in re.findall(r"[a-z][\w'’-]*", text.lower())]
    return frozenset([*words, *(a + b for a, b in zip(words, words[1:], strict=False))])


@lru_cache(maxsize=2**16)
def _alike(one: str, other: str) -> bool:
    """Check whether two words differ in their endings at most."""
    if one == other:
        return True
    common, short, long = len(os.path.commonprefix([one, other])), *sorted(map(len, (one, other)))
    whole = common == short
    rest = long - common
    return (whole and one[common:] + other[common:] in ("s", "es")) or (
        rest <= 3 and (common >= 5 or (whole and common >= 4))
    )


def _share(words: Iterable[str], terms: Iterable[str]) -> bool:
    return any(_alike(word, term) for word in words for term in terms)


def _named(words: Iterable[str]) -> frozenset[str]:
    return frozenset(t for t in (*CATEGORIES, *concepts()) if _share(words, [t]))


def _tag_terms(tag: str) -> list[str]:
    return [tag, *in_category(tag)]


@cache
def _content(text: str) -> frozenset[str]:
    """Return the words of a rule's text that tell what it is about, without places."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    text = _EXCEPT.sub("", text)
    own = {word for word in _words(text) if not re.fullmatch(rf"{PERMIT}|{PROHIBIT}", word)}
    return frozenset(own - ENGLISH_STOP_WORDS - _POLICY_WORDS - {*PLACES}) | _named(own)


def _terms(rule: Rule) -> frozenset[str]:
    return _content(rule.text).union(*map(_tag_terms, rule.tags))


def _stance(text: str) -> str | None:
    """Return what a sentence says of the things in it; None where that cannot be told by words."""
    text = _NOT_PERMITTED.sub("prohibited", text.lower())
    text = _NOT_PROHIBITED.sub("permitted", text)
    permits, prohibits = (
        bool(re.search(rf"\b(?:{words})\b", text)) for words in (PERMIT, PROHIBIT)
    )
    negated = bool(_NOT.search(_EXCEPT.sub("", text)))
    if permits == prohibits:
        return "prohibited" if not permits and re.search(r"\bno \w", text) else None
    return None if negated else "permitted" if permits else "prohibited"


# -- checks: each yields line, check, message ------------------------------------------------------

_Found = Iterator[tuple[int, str, str]]


def _unused(policy: Policy, rules: Sequence[_Ruled], scenes) -> _Found:
    """Find rules and exceptions that decide about nothing."""
    where = "in the set" if scenes is not None else "whatever is shown, and wherever"
    if scenes is None:
        scenes = [(thing, place) for thing in concepts() for place in PLACES]
    met = set()  # of each rule that fires, its first tag, and a place
    for tags in scenes:
        place = next((tag for tag in tags if tag in PLACES), None)
        for tag in tags:
            if tag != place and (rule := policy.item(tag, place).rule):
                met.add((rule.tags[0], place))
    fired = {tag for tag, _ in met}
    for rule, line, excepts in rules:
        about = ", ".join(rule.tags)
        if rule.tags[0] not in fired:
            yield line, "never-fires", f"the rule on {about} decides about nothing {where}"
            continue
        for place, own in excepts.items():
            if (rule.tags[0], place) not in met:
                message = f"nothing {where} meets the exception {place} of {about}"
                yield own, "unmet-exception", message


def _contradictions(rules: Sequence[_Ruled]) -> _Found:
    """Find rules on a thing that turn what a rule on its category says, and do not say so."""
    for (one, line, _), (other, its_line, _) in permutations(rules, 2):
        for tag in one.tags:
            category = category_of(tag)
            if category not in other.tags:
                continue
            places = [p for p in PLACES if one.status_at(p) != other.status_at(p)]
            said = _share(_words(one.text), [category]) or _share(_words(other.text), [tag])
            if not places or (one.status != other.status and said):
                continue
            here = "" if len(places) == len(PLACES) else f" at {', '.join(places)}"
            mine, its = (_VERB[rule.status_at(places[0])] for rule in (one, other))
            clash = (
                f"this rule {mine} {tag}{here}, the one on {category} in line {its_line} {its} it"
            )
            yield line, "contradiction", f"{clash}; the rule on {tag} counts"
    for rule, line, excepts in rules:
        stance = _stance(rule.text)
        if stance and stance != rule.status and not excepts:
            yield line, "contradiction", f"the rule's own text says {stance}: {rule.text}"


def _divided(policy: Policy, rules: Sequence[_Ruled], divided: Iterable[Mapping]) -> _Found:
    """Find rules on which annotators divide for sure: an interval that lies above 0."""
    by_text = {rule.text: line for rule, line, _ in rules}
    for row in divided:
        line = by_text.get(row["clause"]) if row["policy"] == policy.name else None
        for cause in ("unclear", "values"):
            low, high = row[f"{cause}_low"], row[f"{cause}_high"]
            if line and low > 0:
                points = f"{row[cause]:.1f} [{low:.1f}, {high:.1f}] points of disagreement"
                why = {"unclear": "are unclear to them", "values": "go against some of them"}[cause]
                message = f"annotators divide on it, {points}: its words {why}: {row['clause']}"
                yield line, "divides", message


def _rules_without(rules: Sequence[_Ruled], sentences: Sequence[_Sentence]) -> _Found:
    """Find tags and exceptions of rules that no sentence speaks of."""
    spoken = [s for s in sentences if any(_share(s.words, _terms(rule)) for rule, _, _ in rules)]
    if rules and not spoken:
        line = sentences[0].line if sentences else rules[-1].line
        message = "the text names nothing that a rule is about (words are compared in English)"
        yield line, "rule-without-sentence", message
        return
    for rule, line, excepts in rules:
        own = [s for s in sentences if _share(s.words, _terms(rule))]
        alone = _content(rule.text) if len(rule.tags) == 1 else frozenset()
        for tag in rule.tags:
            if not any(_share(s.words, alone.union(_tag_terms(tag))) for s in own):
                yield line, "rule-without-sentence", f"no sentence of the text speaks of {tag}"
        said = _EXCEPT.search(rule.text)
        said = _words(said[1]) - {*PLACES} if said else frozenset()
        said = {word for word in said if len(word) > 3}
        for place, place_line in excepts.items():
            around = [*own, *(s for s in sentences if not s.named)]
            if own and not any(place in s.places or _share(s.words, said) for s in around):
                message = f"no sentence of the text excepts {place} from {', '.join(rule.tags)}"
                yield place_line, "rule-without-sentence", message


def _sentences_without(
    policy: Policy, rules: Sequence[_Ruled], sentences: Sequence[_Sentence]
) -> _Found:
    """Find sentences, and things and places in them, that no rule stands for."""
    check, by_tag = "sentence-without-rule", {tag: r for r in rules for tag in r.rule.tags}
    known = {*by_tag, *map(category_of, by_tag)}
    for line, text, words, named, places, item in sentences:
        stance, plain = _stance(text), text.lower()
        own = [r for r in rules if _share(words, _terms(r.rule))]
        against_default = stance not in (None, policy.default)
        of_rest = bool(_REST.search(plain))
        if not own:
            if (item or (against_default and not of_rest)) and _content(text):
                yield line, check, f"no rule stands for it: {text}"
            continue
        unruled = [tag for tag in named if tag not in known and category_of(tag) not in by_tag]
        excepting = any(places & {*r.rule.places} for r in own)
        if against_default or excepting or (item and len(unruled) == len(named)):
            spoken = {word for r in own for word in _words(r.rule.text)}
            for tag in sorted(tag for tag in unruled if not _share([tag], spoken)):
                yield line, check, f"no rule is about {tag}: {text}"
        said_of = _named(_words(_EXCEPT.sub("", text)))
        about = [by_tag.get(tag) or by_tag.get(category_of(tag)) for tag in sorted(said_of)]
        about = [r for r in about if r]
        if not about or not stance or _NO_PLACE.search(plain):
            continue
        against = [r for r in about if r.rule.status != stance]
        excepted = _EXCEPT.search(plain)
        meant = places if against else places & _words(excepted[1] if excepted else "")
        for place in sorted(meant - {p for r in about for p in r.rule.places}):
            yield line, check, f"no rule excepts {place}: {text}"
        against = [r for r in against if not r.excepts]
        if against and not places and not of_rest:
            message = f"says {stance}, unlike the rule in line {against[0].line}: {text}"
            yield line, "contradiction", message
