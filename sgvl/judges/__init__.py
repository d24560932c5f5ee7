"""Judges by name: ``make_judge("rule").judge(cases)`` -> judgements.

``ask_all`` asks a judge a list of cases and stores every answer.
"""

from collections.abc import Sequence

from sgvl.common import registry
from sgvl.common.errors import InputError, need_known
from sgvl.common.registry import id_of
from sgvl.judges.ask import ask_all
from sgvl.judges.base import Judge, Judgement, Sample, check_id, under
from sgvl.judges.systems import SYSTEMS, expanded

# Named by string, so that a model's libraries are imported when such a judge is made, not before.
JUDGES = {
    "rule": "sgvl.judges.baselines:RuleJudge",
    "always_safe": "sgvl.judges.baselines:always_safe",
    "always_unsafe": "sgvl.judges.baselines:always_unsafe",
    "opennsfw": "sgvl.judges.fixed_head:OpenNsfwJudge",
    "clip_head": "sgvl.judges.fixed_head:ClipHeadJudge",
    "safety_checker": "sgvl.judges.fixed_head:SafetyCheckerJudge",
    "nudenet_classifier": "sgvl.judges.fixed_head:NudeNetClassifierJudge",
    "nudenet_detector": "sgvl.judges.fixed_head:NudeNetDetectorJudge",
    "chat": "sgvl.judges.chat.judge:ChatJudge",
    "shieldgemma": "sgvl.judges.chat.shieldgemma:ShieldGemmaJudge",
    "instructblip": "sgvl.judges.chat.instructblip:InstructBlipJudge",
    "served": "sgvl.judges.served:ServedJudge",
    "moderations": "sgvl.judges.hosted:ModerationsJudge",
    "decisions": "sgvl.judges.hosted:DecisionsJudge",
}


def make_judge(spec: str | dict) -> Judge:
    """Build a judge from a parameter file: its kind or system, or one with options.

    >>> make_judge("rule").id
    'rule'
    >>> make_judge({"kind": "opennsfw", "name": "Open NSFW", "threshold": 0.8}).name
    'Open NSFW'

    Every kind takes ``id`` (names the judge in files, tables and claims; default: the kind),
    ``name`` (is printed; default: the id), and ``optional`` (05_benchmark goes on without a judge
    that cannot be had; default: false).

    Raises
    ------
    InputError
        For an unknown kind or option, with the nearest valid name, and for a missing option; all
        problems of a spec at once.
    """
    spec = _known(spec)
    options, name = _without_name(spec)
    judge_class, options = registry.check("judge", JUDGES, options)
    check_id(id_of(spec))
    judge = judge_class(**options)
    judge.name = name
    return judge


def check_judges(*panels: Sequence[str | dict]) -> list[str]:
    """Check the specs of panels and return the judges' ids; no judge is made, no model loads.

    Raises InputError with all problems: kinds and options, and ids used twice.
    """
    specs = [expanded(spec) for panel in panels for spec in panel]
    problems = []
    for spec in specs:
        if isinstance(spec, dict) and not isinstance(spec.get("name", ""), str):
            problems.append(f"judge {id_of(spec)!r}: name: got {spec['name']!r}, expected str")
        if isinstance(spec, dict) and not isinstance(spec.get("optional", False), bool):
            got = f"got {spec['optional']!r}, expected true or false"
            problems.append(f"judge {id_of(spec)!r}: optional: {got}")
        try:
            check_id(id_of(spec))
            registry.check("judge", JUDGES, _without_name(_known(spec))[0])
        except InputError as error:
            problems += error.problems
    ids = [str(id_of(spec)) for spec in specs]
    folded = [id.casefold() for id in ids]  # some file systems do not tell case apart
    twice = sorted({id for id in ids if folded.count(id.casefold()) > 1})
    problems += [f"two judges have the id {id!r}; give each an `id`" for id in twice]
    names = [_without_name(spec)[1] or id for spec, id in zip(specs, ids, strict=True)]
    alike = sorted({name for name in names if names.count(name) > 1} - set(twice))
    problems += [f"two judges have the name {name!r}; give each its own" for name in alike]
    if problems:
        raise InputError(problems)
    return ids


def check_judge(spec: str | dict) -> None:
    """Check the spec of one judge, as ``check_judges`` does."""
    check_judges([spec])


def check_chat_judge(options: dict) -> None:
    """Check the options of a chat judge, as ``check_judges`` does."""
    check_judges([{"kind": "chat", **options}])


def _known(spec: str | dict) -> str | dict:
    """Return a spec in full. Raises InputError for a kind that is neither in JUDGES nor SYSTEMS."""
    kind = spec.get("kind") if isinstance(spec, dict) else spec
    need_known("unknown judge kind", str(kind), [*JUDGES, *SYSTEMS])
    return expanded(spec)


def _without_name(spec) -> tuple[object, str]:
    if not isinstance(spec, dict):
        return spec, ""
    options = {k: v for k, v in spec.items() if k not in ("name", "optional")}
    return options, str(spec.get("name", ""))
