"""One judge under a policy, or under two versions of it: how it is made, what it costs, and asking.

The commands for a folder of pictures and for an edit of a policy ask in this way.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sgvl.common.errors import InputError
from sgvl.common.progress import counted
from sgvl.common.registry import options_of
from sgvl.data import Sample
from sgvl.experiments import rule_by_rule
from sgvl.experiments.judging import is_nano, notes_on_nano
from sgvl.judges import Judge, ask_all, check_judges, under
from sgvl.judges.ask import unanswered
from sgvl.judges.base import SpeakingJudge
from sgvl.judges.systems import expanded
from sgvl.policies.policy import Policy, load
from sgvl.run.planning.costs import PIXELS_PER_TOKEN
from sgvl.run.units import SERVED
from sgvl.text.prompts import CAPTION, LETTERS_PER_TOKEN


def load_versions(policy: str | Path, before: str | Path | None) -> list[Policy]:
    """Load a policy and, if one is named, an earlier version of it, which gets the same name.

    So a copy of the file under another name is the same policy as before, and is not asked again.
    """
    now = load(policy)
    if before is None:
        return [now]
    then = load(before)
    title = now.title if then.title == Path(before).stem else then.title
    return [now, then.model_copy(update={"name": now.name, "title": title})]


def judge_spec(judge: str | dict, policies: Sequence[Policy], by_rule: bool = False) -> dict:
    """Return a judge's spec with what its options leave open set for a folder of pictures.

    ``"nano"`` is the shipped model. Policies are sent whole, or as clauses to a model that was
    trained here on nothing else; a server gets JPEGs of at most 1,024 pixels a side.

    Raises InputError as ``check_judges`` does, and for a policy that the judge cannot be given in
    its form, or rule by rule, before a model loads.
    """
    spec = {"kind": "chat", "model": "nano"} if judge == "nano" else options_of(judge)
    spec = dict(options_of(expanded(spec)))
    if spec["kind"] in ("chat", "served"):
        clauses = is_nano(spec) and all(policy.default for policy in policies)
        spec = {"policy_form": "brief" if clauses else "full"} | spec
    if spec["kind"] in SERVED:
        spec = {"image_format": "JPEG", "max_side": 1024} | spec
    name = str(spec.get("model", spec["kind"]))
    shown = f"{name} (drawings only)" if is_nano(spec) else name
    spec = {"id": part_of_name(name), "name": shown} | spec
    check_judges([spec])
    if by_rule:
        rule_by_rule.check(spec["kind"], policies)
        spec |= {"id": f"{spec['id']}-by-rule", "name": f"{spec['name']}, rule by rule"}
    if "policy_form" in spec:
        for policy in policies:
            policy.render(spec["policy_form"])
    return spec


def part_of_name(text: str, most: int = 80) -> str:
    """Return a text as part of a file's name: its end, in the letters that every system allows."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text)[-most:].strip("_.+-")


def notes_on(
    spec: dict, judge: Judge, policies: Sequence[Policy], drawn: bool = False
) -> list[str]:
    """Return what to know of a judge before its verdicts on drawn or other pictures are read."""
    notes = notes_on_nano(spec, policies, drawn)
    if len({policy.digest for policy in policies}) < len(policies):
        notes.append("the two versions of the policy are the same")
    return notes + ([] if judge.reads_policy else [f"{judge.name} does not read the policy"])


def ask(
    judge: Judge,
    samples: Sequence[Sample],
    policies: Sequence[Policy],
    answers: Path,
    allow: Callable[[str], bool],
    prices: tuple[float, float] = (0.0, 0.0),
    progress: Callable[[int, int], object] | None = None,
    look: Callable[[Sample], object] = lambda sample: None,
    by_rule: bool = False,
) -> list[dict]:
    """Say how many requests are to be sent, wait for leave where a server gets them, and send them.

    The parameters are those of ``own_pictures.judge_pictures``; ``look`` gets every sample. Returns
    what ``ask_all`` does, with ``error`` for requests that failed.
    """
    sizes, tags = {}, {}

    def seen() -> Iterator[Sample]:
        for sample in samples:
            look(sample)
            sizes[sample.id] = sample.image.size
            tags[sample.id] = sample.tags if judge.reads_tags else ()
            yield sample

    first, captions = rule_by_rule.questions(judge, policies) if by_rule else (policies, [])
    wanted = unanswered(judge, under(seen(), first), answers)
    wanted += unanswered(judge, under(samples, captions), answers) if captions else []
    which = f"the policy {policies[0].name}"
    which = f"two versions of {which}" if policies[1:] else which
    plan = f"{counted(len(sizes), 'picture')} under {which}: "
    plan += f"{counted(len(wanted), 'request')} to {judge.name}"
    if other := len(sizes) * len([*first, *captions]) - len(wanted):
        plan += f"; {counted(other, 'answer')} without a request"
    if wanted and hasattr(judge, "endpoint") and isinstance(judge, SpeakingJudge):
        plan += cost(judge, wanted, sizes, first, prices)
    print(plan, flush=True)
    if wanted and hasattr(judge, "endpoint") and not allow(plan):
        raise InputError("no request was sent; say yes, or add --yes (in Python: yes=True)")
    done, total = 0, len(samples) * sum(map(bool, (first, captions)))

    def settled(number: int) -> None:
        nonlocal done
        done += number
        progress(done, total)

    def asked(questions: Sequence) -> list[dict]:
        return ask_all(
            judge,
            under(samples, questions),
            answers,
            batch_size=min(judge.pictures_at_once, 32),
            progress=settled if progress and wanted else None,
            keep_failed=True,
        )

    given = asked(first)
    if not by_rule:
        return given
    replies = asked(captions) if captions else []
    return rule_by_rule.combine(policies, tags, iter(given), iter(replies))


def cost(judge, wanted, sizes, policies, prices) -> str:
    """Return the estimated tokens of requests to a server, and their price if one is given."""
    text = {p.digest: len(judge.request(p)) / LETTERS_PER_TOKEN for p in policies}
    caption = len(CAPTION[0]) / LETTERS_PER_TOKEN
    limit = judge.endpoint.max_side
    tokens = 0.0
    for request in wanted:
        width, height = sizes[request.id]
        scale = min(1.0, limit / max(width, height)) if limit else 1.0
        tokens += text.get(request.text, caption) + width * height * scale**2 / PIXELS_PER_TOKEN
    replies = judge.max_new_tokens * len(wanted)
    price = (tokens * prices[0] + replies * prices[1]) / 1e6
    most = f"at most {price:.2f}" if price >= 0.01 else "less than 0.01"
    priced = f", {most} at the prices given" if any(prices) else ""
    return (
        f"; about {tokens:,.0f} tokens of pictures (28 x 28 pixels each, as Qwen2.5-VL counts) and "
        f"text, at most {replies:,} of replies{priced}"
    )
