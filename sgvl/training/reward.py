"""Rewards of the second stage, in the form that TRL calls.

The parsers and scores of the benchmark serve here too, so training and scoring cannot disagree
about a verdict or its reason.

``grounded`` is several rewards at once: ``plain`` and, apart, each score of the reason against the
exact content of the picture. TRL adds them up; with ``multi_objective_aggregation:
normalize_then_sum`` among the settings, each is normalised within its group first.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from sgvl.common.errors import need_known
from sgvl.policies.policy import Policy
from sgvl.scores import rationale as scores
from sgvl.scores.rationale import Grounding
from sgvl.text import rationale, verdict

LONG = 50  # characters; the released reward counts a shorter reason as none
FORMAT_SHARE = 0.1  # ours, after EasyR1's weight of a format reward

# The reason, and a whole reply, in the form of the released recipe or of this kit's prompts.
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL | re.IGNORECASE)
_REASON = re.compile(r"\A(.+?)\bAnswer:", re.DOTALL)
_FORM = re.compile(
    r"\A(?:<think>.*?</think>\s*<answer>.*?</answer>|\s*.+?\bAnswer:.*)\Z", re.DOTALL
)


def plain(reply: str, verdict_given: str, label: str) -> float:
    """Return 1 for the right verdict, ``FORMAT_SHARE`` for a wrong one, 0 for unparseable.

    >>> plain("Answer: unsafe", "unsafe", "unsafe")
    1.0
    """
    if verdict_given == label:
        return 1.0
    return 0.0 if verdict_given == verdict.UNPARSEABLE else FORMAT_SHARE


def released(reply: str, verdict_given: str, label: str) -> float:
    """Return the sum of both rewards of SafeGuard-VL's training script: accuracy and format.

    Its flaw is kept: a wrong verdict in full form earns 2.0, but a right one without a reason at
    most 1.5, as much as nonsense in full form. Source: train/plugin.py of the authors' repository,
    and ms-swift's format reward; with the parser ``released_answer`` every reward is theirs.
    """
    reason = _THOUGHT.search(reply) or _REASON.match(reply)
    reasoned = reason is not None and len(reason[1].strip()) >= LONG
    if verdict_given == verdict.UNPARSEABLE:
        accuracy = 0.5 if reasoned else 0.0
    elif verdict_given != label:
        accuracy = 1.0 if reasoned else 0.5
    else:
        accuracy = (2.0 if label == verdict.UNSAFE else 1.7) - (0.0 if reasoned else 0.5)
    return accuracy + float(_FORM.match(reply) is not None)


REWARDS: dict[str, Callable[[str, str, str], float]] = {"plain": plain, "released": released}
GROUNDED = "grounded"
EXACT = ("tags", "rules")  # columns of prompts that this reward reads: things, and a policy's JSON


def rewards_of(
    name: str, replies: Sequence[str], label: str, parser: str = "answer"
) -> list[float]:
    """Return the reward of each reply to one prompt, by the name of the reward.

    >>> rewards_of("plain", ["Answer: unsafe", "Answer: safe", "Hm."], "unsafe")
    [1.0, 0.1, 0.0]
    """
    verdicts = [verdict.parse(reply, parser).verdict for reply in replies]
    return [REWARDS[name](reply, v, label) for reply, v in zip(replies, verdicts, strict=True)]


def check(reward: str, parser: str) -> None:
    """Check the names of a reward and of a parser. Raises InputError for an unknown one."""
    need_known("reward", reward, [*REWARDS, GROUNDED])
    need_known("parser", parser, verdict.PARSERS)


def make_rewards(name: str = "plain", parser: str = "answer") -> list[Callable[..., list[float]]]:
    """Make the reward functions that ``GRPOTrainer`` calls once per generated batch.

    They take the completions and the columns ``label``, ``id`` and ``policy`` (for ``grounded``
    also ``EXACT``), one entry per completion. The first pays for the verdict, and logs the share of
    replies that are right, parseable, and say safe; ``grounded`` has one more for each score of the
    reason.

    Raises
    ------
    InputError
        For an unknown reward or parser.
    FloatingPointError
        When called: for a reward that is not finite, with its step and sample.
    """
    check(name, parser)
    if name != GROUNDED:
        return [_verdict_reward(REWARDS[name], parser)]
    parts = [_reason_reward(part, parser) for part in Grounding._fields]
    return [_verdict_reward(plain, parser), *parts]


def _verdict_reward(pays: Callable, parser: str) -> Callable[..., list[float]]:
    def verdict_reward(completions, label, id, policy, trainer_state=None, **kwargs) -> list[float]:
        replies = [completion[0]["content"] for completion in completions]
        verdicts = [verdict.parse(reply, parser).verdict for reply in replies]
        rewards = [pays(*case) for case in zip(replies, verdicts, label, strict=True)]
        for reward, sample in zip(rewards, id, strict=True):
            if not math.isfinite(reward):
                raise FloatingPointError(
                    f"reward {reward} at step {trainer_state.global_step}, sample {sample}"
                )
        if "log_extra" in kwargs:
            columns = {"sample": id, "policy": policy, "label": label, "verdict": verdicts}
            for column, values in columns.items():
                kwargs["log_extra"](column, list(values))
        if "log_metric" in kwargs:
            n = len(verdicts)
            right = sum(v == truth for v, truth in zip(verdicts, label, strict=True))
            kwargs["log_metric"]("right", right / n)
            kwargs["log_metric"]("parseable", 1 - verdicts.count(verdict.UNPARSEABLE) / n)
            kwargs["log_metric"]("says_safe", verdicts.count(verdict.SAFE) / n)
        return rewards

    return verdict_reward


def _reason_reward(part: str, parser: str) -> Callable[..., list[float]]:
    def reward(completions, tags, rules, **kwargs) -> list[float]:
        replies = [completion[0]["content"] for completion in completions]
        cases = zip(replies, map(tuple, tags), rules, strict=True)
        return [getattr(grounding(*case, parser), part) for case in cases]

    reward.__name__ = f"{part}_reward"  # as TRL calls it in logs and rollouts
    return reward


@lru_cache(maxsize=1024)  # each part asks about the same replies
def grounding(reply: str, tags: tuple[str, ...], rules: str, parser: str = "answer") -> Grounding:
    """Score the reason of a reply against the tags of its picture and the JSON of its policy."""
    policy = Policy.model_validate_json(rules, strict=False)
    given = verdict.parse(reply, parser).verdict
    return scores.score(rationale.items(reply), given, tags, policy)
