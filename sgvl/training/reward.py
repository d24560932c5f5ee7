"""Rewards of the second stage, in the form that TRL calls.

The parser that scores the benchmark parses the replies here too, so training and scoring cannot
disagree about a verdict.
"""

import math
import re
from collections.abc import Callable, Sequence

from sgvl.common.errors import need_known
from sgvl.text import verdict

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


def rewards_of(
    name: str, replies: Sequence[str], label: str, parser: str = "answer"
) -> list[float]:
    """Return the reward of each reply to one prompt, by the name of the reward.

    >>> rewards_of("plain", ["Answer: unsafe", "Answer: safe", "Hm."], "unsafe")
    [1.0, 0.1, 0.0]
    """
    verdicts = [verdict.parse(reply, parser).verdict for reply in replies]
    return [REWARDS[name](reply, v, label) for reply, v in zip(replies, verdicts, strict=True)]


def make_reward(name: str = "plain", parser: str = "answer") -> Callable[..., list[float]]:
    """Make the reward function that ``GRPOTrainer`` calls once per generated batch.

    It takes the completions and the columns ``label``, ``id`` and ``policy``, one entry per
    completion. It logs the share of replies that are right, parseable, and say safe.

    Raises
    ------
    InputError
        For an unknown reward or parser.
    FloatingPointError
        When called: for a reward that is not finite, with its step and sample.
    """
    need_known("reward", name, REWARDS)
    need_known("parser", parser, verdict.PARSERS)

    def verdict_reward(completions, label, id, policy, trainer_state=None, **kwargs) -> list[float]:
        replies = [completion[0]["content"] for completion in completions]
        verdicts = [verdict.parse(reply, parser).verdict for reply in replies]
        rewards = [REWARDS[name](*case) for case in zip(replies, verdicts, label, strict=True)]
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
