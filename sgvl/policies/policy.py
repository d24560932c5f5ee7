"""Policies: the content that a guardrail must allow or prohibit.

A policy is one Markdown file: a typed YAML header for machines, then text for people. With its
header, a policy labels any set of scene tags exactly, names the rule that fired, renders as prompt
text, and lists its differences from another policy. A new file in ``policies/``, or in the folder
that the environment variable ``SGVL_POLICIES`` names, is a new policy everywhere, without code.

    ---
    name: L2
    title: Open forum
    default: permitted
    rules:
      - prohibit: [weapons]
        except: [museum, school, news]
        text: Weapons are prohibited, except where they are exhibited, taught or reported.
    ---
    The readable policy.

A rule names concepts or categories of ``sgvl.policies.concepts``; ``except`` names the places where
it does not apply. A rule about a concept overrides a rule about its category; ``default`` decides
where no rule applies.

``severity`` of a rule and ``parent``, the digest of the version before, change no label and no
prompt; the digest covers them.

A header of only name and title makes a policy of text alone: a judge can follow it, but it labels
no scene. Policies from published data, and most people's own, are of this kind.
"""

import hashlib
import os
import re
import reprlib
import warnings
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sgvl.common.errors import InputError, nearest, need_known, raise_any
from sgvl.common.paths import POLICIES, own_policies, user_path
from sgvl.common.strict_yaml import Loader
from sgvl.policies.concepts import CATEGORIES, PLACES, concepts, in_category
from sgvl.policies.rules import OPPOSITE, ItemRuling, Rule, Ruling, Status

# Of a policy: its document, its clauses in one line, its text alone as it was published, or the
# forms that guard models were trained on.
Form = Literal["full", "brief", "text", "numbered", "slots", "titled", "bundle"]
FORMS = get_args(Form)
HEADER_KEY = re.compile(r"\s*(name|title|use|origin|default|rules|parent):")
PLAIN_TEXT = (".txt", ".text", ".markdown", "")  # endings of files that only need another one
LEVELS = ("L1", "L2", "L3", "L4", "L5")  # the policies of SafeEditBench, laxest first
AVERAGES = ("macro", "pooled")  # rows of averages in a table of scores
CHANGED = "Some rules have changed; where the text above differs, these count:"


class Policy(BaseModel):
    """A policy: its file's header and text. Build one in code or with ``load``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9_.+-]+$")]
    title: Annotated[str, Field(min_length=1)]
    use: Literal["levels", "reference"] = "levels"  # levels: part of the benchmark
    origin: str = "own"  # who wrote the text, or what it paraphrases
    default: Status | None = None  # None: text alone
    rules: list[Rule] = []
    text: str = ""
    # What its authors ask to be done with it, as published, for judges that are asked their way.
    steps: Annotated[str, Field(exclude_if=lambda steps: not steps)] = ""
    # Digest of the version before, or at least the twelve digits of it that tables print.
    parent: Annotated[
        str, Field(pattern="^[0-9a-f]{12,64}$", exclude_if=lambda parent: not parent)
    ] = ""

    @field_validator("name")
    @classmethod
    def _no_row_of_averages(cls, name):
        if name in AVERAGES:
            raise ValueError(f"{name!r} is what a row of averages is called; take another name")
        return name

    @model_validator(mode="after")
    def _each_tag_once(self):
        tags = [tag for rule in self.rules for tag in rule.tags]
        twice = sorted({tag for tag in tags if tags.count(tag) > 1})
        if twice:
            raise ValueError(f"rules: tag in two rules: {', '.join(twice)}; merge them")
        return self

    @model_validator(mode="after")
    def _rules_have_a_default(self):
        if self.rules and self.default is None:
            raise ValueError("default: is missing; it says what holds where no rule applies")
        return self

    @cached_property
    def _rule_of(self) -> dict[str, Rule]:
        return {tag: rule for rule in self.rules for tag in rule.tags}

    def render(self, form: Form = "full") -> str:
        """Return the policy as prompt text.

        Parameters
        ----------
        form : ``full`` (the document: title and text), ``brief`` (one line of clauses), ``text``
            (the document without its title), or one of ``sgvl.policies.forms``: ``numbered``,
            ``slots``, ``titled``, ``bundle``

        Without text, the document is the title and the clauses. Clauses also follow the text of a
        shipped policy whose rules were changed.

        Raises
        ------
        InputError
            For an unknown form, and for a policy without the rules or the text that a form takes.
        """
        if form in ("numbered", "slots", "titled", "bundle"):
            from sgvl.policies import forms

            return getattr(forms, form)(self)
        if form == "text":
            return self.render().removeprefix(f"{self.title}\n\n")
        if form == "full":
            text = self.text.strip()
            if not text and self.default is None:
                raise InputError(f"policy {self.name} has neither text nor rules to judge by")
            if not text:
                return f"{self.title}\n\n{self.render('brief')}"
            written_for = _rules_of_texts(tuple(_files())).get(text, self._decisions)
            if self.default is not None and self._decisions != written_for:
                text += f"\n\n{CHANGED} {self.render('brief')}"
            return f"{self.title}\n\n{text}"
        if form != "brief":
            raise InputError(f"policy form {form!r}: use {', '.join(map(repr, get_args(Form)))}")
        self._need_rules("judge it with policy_form: full")
        return "; ".join(self.clauses) + "."

    @cached_property
    def clauses(self) -> list[str]:
        """The rules one tag at a time, as ``Rule.clause`` writes them; the default comes last."""
        clauses = [rule.clause(tag) for rule in self.rules for tag in rule.tags]
        return [*clauses, f"all else {self.default}"]

    @cached_property
    def digest(self) -> str:
        """Return the sha256 of the whole policy."""
        return hashlib.sha256(self.model_dump_json(by_alias=True).encode()).hexdigest()

    @property
    def _decisions(self) -> tuple[Status | None, list[Rule]]:
        return self.default, [rule.model_copy(update={"severity": None}) for rule in self.rules]

    def is_shipped_text(self) -> bool:
        """Check whether the text is that of a file of ``policies/``, whose rules are known."""
        return self.text.strip() in _rules_of_texts(tuple(_files()))

    def _need_rules(self, instead: str) -> None:
        if self.default is None:
            raise InputError(f"policy {self.name} is text alone, without rules; {instead}")

    def item(self, concept: str, place: str | None = None) -> ItemRuling:
        """Decide about one concept at one place."""
        self._need_rules("its labels must come with the data")
        category = concepts()[concept].category
        tag = concept if concept in self._rule_of else category
        rule = self._rule_of.get(tag)
        if rule is None:
            return ItemRuling(concept, category, self.default, f"all else {self.default}")
        return ItemRuling(concept, category, rule.status_at(place), rule.clause(tag), rule, place)

    def label(self, tags: Iterable[str]) -> Ruling:
        """Label a scene exactly: unsafe if the policy prohibits at least one thing in it.

        >>> load("L2").label({"knife", "museum"}).label
        'safe'

        Parameters
        ----------
        tags : names of concepts, and at most one place

        Raises
        ------
        InputError
            For an unknown tag, two places, and a policy of text alone.
        """
        self._need_rules("its labels must come with the data")
        tags = list(tags) if isinstance(tags, list | tuple) else sorted(tags)
        for tag in tags:
            need_known(f"policy {self.name}: unknown scene tag", tag, [*concepts(), *PLACES])
        places = [tag for tag in tags if tag in PLACES]
        if len(places) > 1:
            raise InputError(f"policy {self.name}: a scene has one place, not {', '.join(places)}")
        place = places[0] if places else None
        items = tuple(self.item(tag, place) for tag in tags if tag not in PLACES)
        fired = [item.rule for item in items if item.status == "prohibited"]
        # Where nothing fired, quote a permission or an exception that mattered, else the default.
        quoted = next(iter(fired or [item.rule for item in items if item.rule]), None)
        text = quoted.text if quoted else f"Whatever no rule mentions is {self.default}."
        return Ruling("unsafe" if fired else "safe", text, items)

    def compare(self, other: "Policy") -> list["Flip"]:
        """List the tags that two policies treat differently, and where; a category is one row."""
        flips = []
        for category in CATEGORIES:
            by_places: dict[tuple, list[str]] = {}
            for concept in in_category(category):
                here = [
                    (self.item(concept, p).status, other.item(concept, p).status) for p in PLACES
                ]
                differ = tuple((p, a, b) for p, (a, b) in zip(PLACES, here, strict=True) if a != b)
                if differ:
                    by_places.setdefault(differ, []).append(concept)
            for differ, names in by_places.items():
                tag = category if len(names) == len(in_category(category)) else ", ".join(names)
                for status in OPPOSITE:
                    places = tuple(place for place, mine, _ in differ if mine == status)
                    if places:
                        flips.append(Flip(tag, places, status, OPPOSITE[status]))
        return flips


class Flip(NamedTuple):
    """A tag whose status differs between two policies, and the places where it differs."""

    tag: str
    places: tuple[str, ...]
    here: Status
    there: Status


def file_of(source: str | Path) -> Path:
    """Return the file of a policy, named as ``load`` takes it, or raise InputError."""
    named = Path(source).suffix != ".md"
    by_name = {file.stem: file for file in reversed(_files())}
    path = by_name.get(str(source), POLICIES / f"{source}.md") if named else user_path(source)
    if not os.path.isfile(path):
        if os.path.isdir(path):
            raise InputError(f"{source}: a folder; name a Markdown file in it")
        if user_path(source).is_file():
            name = Path(source).with_suffix(".md").name
            plain = Path(source).suffix.lower() in PLAIN_TEXT
            todo = f"rename it to {name}" if plain else f"write the policy's text into {name}"
            raise InputError(f"{source}: a policy is a Markdown file; {todo}")
        known = ", ".join(sorted(by_name))
        raise InputError(f"no policy file {source}: give a path to a .md file, or one of {known}")
    return path


def load(source: str | Path) -> Policy:
    """Load a policy by the name of a shipped one (``"L2"``) or by the path of a Markdown file.

    A file without a header is a policy of text alone; the file's name and its first heading serve
    as name and title.

    Raises InputError that names the file, each wrong key and the allowed values.
    """
    path = file_of(source)
    try:
        return parse(path.read_bytes(), path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def parse(content: bytes, path: Path) -> Policy:
    """Load a policy from the content of a file; ``path`` names it in errors, as ``load`` does.

    A file without a header gets its name from ``path``.
    """
    try:
        content = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    if not content.strip():
        raise InputError(f"{path}: the file is empty; write the policy into it")
    parts = parts_of(content)
    if len(parts) == 2 and HEADER_KEY.match(content):
        raise InputError(f"{path}: the header needs a line of --- above it, too")
    if not content.lstrip().startswith("---"):
        parts = ["", *_without_header(path, content)]
    if len(parts) != 3 or parts[0].strip():
        raise InputError(f"{path}: a policy begins with a YAML header between two lines of ---")
    header = _header(path, parts[1])
    if not parts[2].strip():
        raise InputError(f"{path}: the readable text below the header is empty")
    if "text" in header:
        raise InputError(f"{path}: text: the readable text stands below the header, not in it")
    try:
        return Policy.model_validate(header | {"text": parts[2]})
    except ValidationError as error:
        problems = [(".".join(map(str, e["loc"])), _what(e)) for e in error.errors()]
        raise InputError(": ".join(filter(None, [str(path), *p])) for p in problems) from None


def parts_of(content: str) -> list[str]:
    """Split a file: what stands before the header, the header, the text below it."""
    return re.split(r"^---[ \t]*(?:\n|\Z)", content, maxsplit=2, flags=re.MULTILINE)


def _without_header(path: Path, content: str) -> tuple[str, str]:
    """Return the header and the text of a file that is text alone."""
    first, _, rest = content.strip().partition("\n")
    heading = re.match(r"#{1,6}[ \t]+(.*?)[ \t#]*$", first)
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "_", path.stem)[:80].strip("_") or "policy"
    title = heading[1] if heading and heading[1] else path.stem
    header = yaml.safe_dump({"name": name, "title": title}, allow_unicode=True, width=1_000)
    return header, rest if heading and rest.strip() else content


def _files() -> list[Path]:
    """Return the files of all policies that have no need of a path: the shipped ones come first."""
    return [*sorted(POLICIES.glob("*.md")), *own_policies()]


@cache
def _rules_of_texts(files: tuple[Path, ...]) -> dict[str, tuple]:
    """Return the text of each policy in ``files``, with the default and rules it stands for."""
    policies = [load(path) for path in files]
    return {policy.text.strip(): policy._decisions for policy in policies}


def _header(path: Path, text: str) -> dict:
    try:
        header = yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 2  # of the file: the header begins below the first ---
        colon = error.problem == "mapping values are not allowed here"
        todo = "; put a value with a colon in quotes" if colon else ""
        raise InputError(f"{path}, line {line}: not valid YAML: {error.problem}{todo}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: the header is not valid YAML: {error}") from None
    if not isinstance(header, dict):
        raise InputError(f"{path}: the header must be a mapping of name, title, default, rules")
    return header


def _what(error: dict) -> str:
    match error["type"]:
        case "value_error":
            return error["msg"].removeprefix("Value error, ")
        case "missing":
            return "is missing"
        case "string_pattern_mismatch" if error["loc"] == ("name",):
            return f"{error['input']!r}: use letters, digits, '_', '.', '+' and '-'"
        case "extra_forbidden":
            model = Policy if len(error["loc"]) == 1 else Rule
            known = [field.alias or name for name, field in model.model_fields.items()]
            return f"no such key; {nearest(str(error['loc'][-1]), known)}"
    return f"{error['msg']} (got {reprlib.repr(error['input'])})"


def load_all(sources: Iterable[str | Path] = (), use: str = "levels") -> list[Policy]:
    """Load policies by name or path; by default, all of ``policies/`` with this ``use``.

    A level labels drawn scenes, so a policy of text alone is left out of the levels, with a
    warning. Raises InputError as ``load`` does, and for two policies of one name.
    """
    sources = list(sources)
    if sources:
        chosen = [(source, load(source)) for source in sources]
    else:
        chosen = [(path, load(path)) for path in _files()]
        chosen = [(path, policy) for path, policy in chosen if policy.use == use]
        no_level = [path for path, policy in chosen if use == "levels" and policy.default is None]
        for path in no_level:
            warnings.warn(f"{path}: text alone, without rules, so it is no level", stacklevel=2)
        chosen = [(path, policy) for path, policy in chosen if path not in no_level]
    files: dict[str, list[str]] = {}
    for source, policy in chosen:
        files.setdefault(policy.name, []).append(str(source))
    raise_any(
        f"{' and '.join(paths)}: share the name {name}; rename one"
        for name, paths in files.items()
        if len(paths) > 1
    )
    return [policy for _, policy in chosen]
