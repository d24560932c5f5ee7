"""Versions of a policy file: its history, what each edit was, and the version of a day.

The history is that of git where the file is in a repository. Elsewhere it goes back from ``parent``
to ``parent`` through the copies that ``sgvl.judge`` keeps of every version that it judged under.
"""

import re
import subprocess
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime, time
from glob import escape
from pathlib import Path
from typing import NamedTuple

from sgvl.common.errors import InputError
from sgvl.policies.concepts import CATEGORIES, category_of, in_category
from sgvl.policies.policy import Policy, parse
from sgvl.policies.rules import Rule

DIGITS = 12  # of a digest, in names of files and columns


class Version(NamedTuple):
    """A version of a policy, with its commit and the time of it (UTC) if it is committed."""

    policy: Policy
    content: bytes  # of the file
    date: datetime | None = None
    commit: str = ""


def history(file: Path, copies: Path | None = None) -> list[Version]:
    """Return the versions of a policy file, the oldest first and the file as it is last.

    A commit that leaves the policy as it was, and one whose file is no policy, is left out; the
    latter with a warning.

    Parameters
    ----------
    copies : folder with the copies that ``sgvl.judge`` keeps; read where the file has no commits
    """
    current = _read(file.read_bytes(), file)
    earlier = _committed(file) or _parents(current, kept(file, copies))
    versions = [*earlier, current]
    return [
        version
        for k, version in enumerate(versions)
        if k == 0 or version.policy.digest != versions[k - 1].policy.digest
    ]


def kept(file: Path, copies: Path | None) -> list[Version]:
    """Return the copies that ``sgvl.judge`` keeps of a policy file, in no order."""
    name = _read(file.read_bytes(), file).policy.name
    found = sorted(copies.glob(f"{escape(name)}-*.md")) if copies else []
    own = [path for path in found if re.fullmatch("[0-9a-f]{12}", path.stem[len(name) + 1 :])]
    return [_read(path.read_bytes(), file) for path in own]


def at(file: Path, when: str, copies: Path | None = None) -> Version:
    """Return the version of a policy file of a date, or the one of a digest.

    Parameters
    ----------
    when : a date (2026-03-01: the version at its end, in UTC), a time (2026-03-01T12:00), or the
        first digits of a digest, six at least
    copies : as for ``history``

    Raises
    ------
    InputError
        If there is no such version, or more than one.
    """
    versions = history(file, copies)
    if re.fullmatch("[0-9a-f]{6,64}", when):
        versions = {version.policy.digest: version for version in [*versions, *kept(file, copies)]}
        found = [version for digest, version in versions.items() if digest.startswith(when)]
        if len(found) != 1:
            known = ", ".join(digest[:DIGITS] for digest in versions)
            raise InputError(f"{file}: {len(found)} versions of digest {when}; known: {known}")
        return found[0]
    try:
        moment = datetime.fromisoformat(when)
    except ValueError:
        forms = "a date (2026-03-01), a time (2026-03-01T12:00) or the digest of a version"
        raise InputError(f"version {when!r}: write {forms}") from None
    if len(when) == len("2026-03-01"):
        moment = datetime.combine(moment, time.max)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    dated = [version for version in versions if version.date]
    if not dated:
        raise InputError(
            f"{file}: not committed to a git repository, so no version has a date; name a digest, "
            f"such as {versions[-1].policy.digest[:DIGITS]}"
        )
    found = [version for version in dated if version.date <= moment]
    if not found:
        raise InputError(f"{file}: no version on {when}; the first is of {dated[0].date:%Y-%m-%d}")
    return found[-1]


def edits(before: Policy, now: Policy) -> list[str]:
    """Name each edit between two versions, in the words of ``sgvl.experiments.squares``.

    >>> from sgvl.policies import load
    >>> edits(load("L2"), load("L3"))[-1]
    'wording: title, text, rules on weapons, selfharm, cruelty'
    """
    found = [f"default turned: all else {now.default}"] if now.default != before.default else []
    old, new = ({tag: rule for rule in p.rules for tag in rule.tags} for p in (before, now))
    gone, added = [tag for tag in old if tag not in new], [tag for tag in new if tag not in old]
    for category in [tag for tag in gone if tag in CATEGORIES]:
        things = in_category(category)
        if all(thing in added and _same(new[thing], old[category]) for thing in things):
            found.append(f"category spelt out: {category}")
            gone.remove(category)
            added = [tag for tag in added if tag not in things]
    if len(gone) == len(added) == 1 and _same(old[gone[0]], new[added[0]]):
        what = "category" if gone[0] in CATEGORIES and added[0] in CATEGORIES else "thing"
        found.append(f"{what} swapped: {gone[0]} to {added[0]}")
    else:
        found += [f"rule dropped: {old[tag].clause(tag)}" for tag in gone]
        found += [f"{_addition(tag, new)}: {new[tag].clause(tag)}" for tag in added]
    both = [tag for tag in old if tag in new]
    for tag in both:
        found += _changes(tag, old[tag], new[tag])
    if both != [tag for tag in new if tag in old]:
        found.append("clauses reordered")
    words = [name for name in ("title", "text", "steps")
             if getattr(before, name).strip() != getattr(now, name).strip()]  # fmt: skip
    said = [tag for tag in both if old[tag].text != new[tag].text]
    words += [f"rules on {', '.join(said)}"] * bool(said)
    return found + [f"wording: {', '.join(words)}"] * bool(words)


def _same(one: Rule, other: Rule) -> bool:
    return one.status == other.status and set(one.places) == set(other.places)


def _addition(tag: str, rules: dict[str, Rule]) -> str:
    about = rules.get(category_of(tag))
    return "thing carved out" if about and about.status != rules[tag].status else "rule added"


def _changes(tag: str, old: Rule, new: Rule) -> Iterable[str]:
    """Name the edits of a rule about a tag that both versions have a rule about."""
    if old.status != new.status:
        yield f"rule turned: {new.clause(tag)}"
    gone = [place for place in old.places if place not in new.places]
    added = [place for place in new.places if place not in old.places]
    if len(gone) == len(added) == 1:
        yield f"place swapped: {tag}, {gone[0]} to {added[0]}"
    else:
        yield from (f"exception removed: {tag}, {place}" for place in gone)
        yield from (f"exception added: {tag}, {place}" for place in added)
    if old.severity != new.severity:
        yield f"severity of {tag}: {old.severity or 'none'} to {new.severity or 'none'}"


def _read(content: bytes, file: Path, **commit) -> Version:
    return Version(parse(content, file), content, **commit)


def _parents(current: Version, copies: list[Version]) -> list[Version]:
    """Return the versions before one, as far back as the copies go."""
    left, found, parent = list(copies), [], current.policy.parent
    while before := [v for v in left if parent and v.policy.digest.startswith(parent)]:
        found.insert(0, before[0])
        left.remove(before[0])
        parent = before[0].policy.parent
    return found


def _committed(file: Path) -> list[Version]:
    """Return the committed versions of a file under all its names; none without git."""
    log = ("log", "--follow", "--name-only", "-z", "--format=%H %ct", "--", file.name)
    versions, commit = [], ""
    for part in (_git(file, *log) or b"").decode("utf-8", "surrogateescape").split("\0"):
        if not part.startswith("\n"):
            commit, _, seconds = part.partition(" ")
            continue
        content = _git(file, "cat-file", "blob", f"{commit}:{part[1:]}")
        if content is None:  # the commit that deleted it
            continue
        try:
            date = datetime.fromtimestamp(int(seconds), UTC)
            versions.insert(0, _read(content, file, date=date, commit=commit))
        except InputError as error:
            warnings.warn(f"commit {commit[:DIGITS]} left out: {error.problems[0]}", stacklevel=4)
    return versions


def _git(file: Path, *arguments: str) -> bytes | None:
    """Return what git prints in the folder of a file, or None where it fails or is not there."""
    command = ["git", "--literal-pathspecs", *arguments]
    try:
        done = subprocess.run(command, cwd=file.absolute().parent, capture_output=True)
    except OSError:
        return None
    return None if done.returncode else done.stdout
