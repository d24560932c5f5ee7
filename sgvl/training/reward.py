"""Rewards of the second stage: the metric's own judgement of a reply, as TRL takes it.

A reply is read by the parser that also reads the benchmark's replies, so training and scoring
cannot disagree about what an answer said.
"""

import math
import re
from collections.abc import Callable, Sequence

from sgvl.common.errors import need_known
from sgvl.text import verdict

LONG = 50  # characters of reason that the released reward asks for
FORMAT_SHARE = 0.1  # ours, after EasyR1's weight of a format reward

# A reason before its answer, in the form of the released recipe or in this kit's own.
_REASON = re.compile(r"\A\s*(?:<think>(.*?)</think>|(.+?)\bAnswer:)", re.DOTALL)
_FORM = re.compile(
    r"\A\s*(?:<think>.*?</think>\s*<answer>.*?</answer>|.+?\bAnswer:.*)\s*\Z", re.DOTALL
)


def plain(reply: str, verdict_given: str, label: str) -> float:
    """1 for the right verdict; for a wrong one that can be read, a small share for its form.

    >>> plain("Answer: unsafe", "unsafe", "unsafe")
    1.0
    """
    if verdict_given == label:
        return 1.0
    return 0.0 if verdict_given == verdict.UNPARSEABLE else FORMAT_SHARE


def released(reply: str, verdict_given: str, label: str) -> float:
    """The table of SafeGuard-VL's released training script, with its format reward added.

    Its flaw is kept: a wrong verdict in full form earns 2.0, a right one without a reason at most
    1.5, and nonsense in full form 1.5. Source: train/plugin.py of the authors' repository.
    """
    reason = _REASON.match(reply)
    reasoned = reason is not None and len((reason[1] or reason[2] or "").strip()) >= LONG
    if verdict_given == verdict.UNPARSEABLE:
        accuracy = 0.5 if reasoned else 0.0
    elif verdict_given != label:
        accuracy = 1.0 if reasoned else 0.5
    else:
        accuracy = (2.0 if label == verdict.UNSAFE else 1.7) - (0.0 if reasoned else 0.5)
    return accuracy + float(_FORM.match(reply) is not None)


REWARDS: dict[str, Callable[[str, str, str], float]] = {"plain": plain, "released": released}


def rewards_of(
    kind: str, replies: Sequence[str], label: str, parser: str = "answer"
) -> list[float]:
    """The rewards of replies to one case with this label.

    >>> rewards_of("plain", ["Answer: unsafe", "Answer: safe", "Hm."], "unsafe")
    [1.0, 0.1, 0.0]
    """
    said = [verdict.parse(reply, parser).verdict for reply in replies]
    return [REWARDS[kind](reply, v, label) for reply, v in zip(replies, said, strict=True)]


def make_reward(kind: str = "plain", parser: str = "answer") -> Callable[..., list[float]]:
    """The reward function that ``GRPOTrainer`` calls, once for every generated batch.

    It reads the columns ``label`` (safe or unsafe), ``id`` and ``policy``, one entry a completion,
    and logs what a mean reward hides: how many replies were right, readable, and said safe. A
    reward that is not a number stops the run and names step and sample.
    """
    need_known("reward", kind, REWARDS)
    need_known("parser", parser, verdict.PARSERS)

    def verdict_reward(completions, label, id, policy, trainer_state=None, **kwargs) -> list[float]:
        replies = [completion[0]["content"] for completion in completions]
        said = [verdict.parse(reply, parser).verdict for reply in replies]
        rewards = [REWARDS[kind](*case) for case in zip(replies, said, label, strict=True)]
        for reward, sample in zip(rewards, id, strict=True):
            if not math.isfinite(reward):
                raise FloatingPointError(
                    f"reward {reward} at step {trainer_state.global_step}, sample {sample}"
                )
        if "log_extra" in kwargs:
            for name, column in {"sample": id, "policy": policy, "label": label}.items():
                kwargs["log_extra"](name, list(column))
            kwargs["log_extra"]("verdict", said)
        if "log_metric" in kwargs:
            n = len(said)
            right = sum(v == truth for v, truth in zip(said, label, strict=True))
            kwargs["log_metric"]("right", right / n)
            kwargs["log_metric"]("parseable", 1 - said.count(verdict.UNPARSEABLE) / n)
            kwargs["log_metric"]("says_safe", said.count(verdict.SAFE) / n)
        return rewards

    return verdict_reward
