"""The chat judge: any vision-language model of transformers, asked in its own chat template."""

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from itertools import groupby
from os.path import commonprefix

from sgvl.common.errors import InputError
from sgvl.data import Sample
from sgvl.judges.base import Judgement, SpeakingJudge
from sgvl.judges.chat.prefix import Prefix, log_probability, record_last_logits
from sgvl.judges.chat.reader import Reader
from sgvl.models import loading
from sgvl.text import prompts, verdict


class ChatJudge(SpeakingJudge):
    """Asks a chat model for a reply, reads the verdict from it, and scores P(unsafe).

    P(unsafe) compares the full words ``safe`` and ``unsafe`` as continuations of the reply up to
    its verdict: their log-probabilities, normalised over the two.

    Parameters
    ----------
    model : ``"nano"``, a folder, or a hub id
    prompt : name of a prompt in ``sgvl.text.prompts.JUDGE``
    policy_form : ``"full"`` (the document) or ``"brief"`` (its clauses); nano reads ``"brief"``
    parser : name of a parser in ``sgvl.text.verdict.PARSERS``
    max_new_tokens : length limit of a reply, in tokens
    score : whether P(unsafe) is computed: while a reply is written where each of the words is one
        token, else in one more forward pass
    batch_size : pictures times policies that are judged at once; does not change answers
    """

    def __init__(
        self,
        name: str = "chat",
        model: str = "nano",
        revision: str | None = None,
        prompt: str = "reason",
        policy_form: str = "brief",
        parser: str = "answer",
        max_new_tokens: int = 120,
        with_p_unsafe: bool = True,
        batch_size: int = 32,
        dtype: str = "float32",
        device: str = "cpu",
    ):
        super().__init__(name, prompt, policy_form, parser, max_new_tokens, with_p_unsafe)
        self.batch_size = batch_size
        self.model_name, self.revision, self.dtype = model, revision, dtype
        self.commit = loading.pin(model, revision)
        self.model, self.processor = loading.load(model, self.commit, dtype, device)
        self.reader = Reader(self.model, self.processor)

    def identity(self) -> dict:
        return {
            "kind": "chat",
            "model": self.model_name,
            "revision": self.revision,
            "weights": self.commit or loading.digest(self.model_name),
            "dtype": self.dtype,
            "pixels": dict(self.processor.image_processor.size),
            "template": hashlib.sha256(self.processor.chat_template.encode()).hexdigest(),
            **super().identity(),
        }

    def judge_batch(self, samples: Sequence[Sample], policies) -> list[list[Judgement]]:
        """Whichever of picture and policy comes first is read once, and the other goes on from
        there, where the model can do so; otherwise every case is asked whole."""
        k, images = len(policies), [sample.image for sample in samples]
        if k > 1 and self.prefix_sharing == "picture":
            return self._pictures_first(images, list(map(self._judge_turn, policies)))
        if len(images) > 1 and self.prefix_sharing == "policy":
            return self._policies_first(images, list(map(self._judge_turn, policies)))
        done = self.judge_cases([(sample, policy) for sample in samples for policy in policies])
        return [done[i : i + k] for i in range(0, len(done), k)]

    def judge_cases(self, cases: Sequence[tuple]) -> list[Judgement]:
        """Cases of like length are asked together, so that little is padding."""
        turns = [self._judge_turn(policy) for _, policy in cases]
        order = sorted(range(len(cases)), key=lambda i: len(turns[i]))
        done: dict[int, Judgement] = {}
        for start in range(0, len(cases), self.batch_size):
            part = order[start : start + self.batch_size]
            images, asked = [cases[i][0].image for i in part], [turns[i] for i in part]
            told = self._judgements(self._whole(images, asked), images, asked)
            done |= zip(part, told, strict=True)
        return [done[i] for i in range(len(cases))]

    def ask(self, images: Sequence, questions: Sequence[str]) -> list[str]:
        """Plain replies to questions about images, greedily decoded.

        One image a question, or a list of them, placed as ``prompts.illustrated`` says.
        """
        replies: list[str] = []
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            asked = list(map(self._question, questions[part], images[part]))
            shown = [[b["image"] for b in message["content"] if "image" in b] for message in asked]
            turns = list(map(self.reader.turn, asked))
            told = self.reader.generate(shown, turns, max_new_tokens=self.max_new_tokens)
            replies += map(self.reader.text, told)
        return replies

    def _question(self, text: str, shown) -> dict:
        place = prompts.illustrated if isinstance(shown, list) else prompts.message
        return place(prompts.inert(text, ["<|"]), shown)

    def _judge_turn(self, policy) -> str:
        """Raises InputError for a policy that leaves no room for the reply, pictures apart."""
        turn = self._turn(self.question(policy))
        taken = len(self.reader.ids(turn))
        room = self.model.config.get_text_config().max_position_embeddings - self.max_new_tokens
        if taken > room:
            raise InputError(
                f"judge {self.name}: policy {policy.name} takes {taken} tokens in the form "
                f"{self.policy_form!r}; beside its reply, the model has room for {room}"
            )
        return turn

    def _turn(self, text: str) -> str:
        return self.reader.turn(prompts.illustrated(text, [True]))

    @cached_property
    def prefix_sharing(self) -> str:
        """What one forward pass reads for many verdicts; see ``Reader.prefix_sharing``."""
        texts = "Prohibited: a.", "Permitted: a, b, c."
        asked = [prompts.judge_prompt(text, self.prompt) for text in texts]
        return self.reader.prefix_sharing(list(map(self._turn, asked)))

    def _pictures_first(self, images: list, turns: Sequence[str]) -> list[list[Judgement]]:
        rows: list[list[Judgement]] = []
        for start in range(0, len(images), self.batch_size):
            part = images[start : start + self.batch_size]
            seen, at_once = self.reader.seen(part, turns), max(1, self.batch_size // len(part))
            told: list[Judgement] = []  # (turn, picture), flat
            for first in range(0, len(turns), at_once):
                some = turns[first : first + at_once]
                asked = [turn for turn in some for _ in part]
                told += self._judgements(self.reader.under(seen, some), part * len(some), asked)
            rows += [told[i :: len(part)] for i in range(len(part))]
        return rows

    def _policies_first(self, images: list, turns: Sequence[str]) -> list[list[Judgement]]:
        """Pictures of one size at a time: nothing may be padded after the policy."""
        done: dict[int, list[Judgement]] = {i: [] for i in range(len(images))}
        by_size = sorted(done, key=lambda i: images[i].size)
        batches = []
        for _, alike in groupby(by_size, key=lambda i: images[i].size):
            own = list(alike)
            batches += [own[i : i + self.batch_size] for i in range(0, len(own), self.batch_size)]
        for turn in turns:
            opening = self.reader.opening(turn)
            for part in batches:
                shown, asked = [images[i] for i in part], [turn] * len(part)
                read = self.reader.about(shown, turn, opening)
                for i, told in zip(part, self._judgements(read, shown, asked), strict=True):
                    done[i].append(told)
        return list(done.values())

    def _whole(self, images: Sequence, turns: Sequence[str]) -> Prefix | None:
        """Each turn but for its last token, about its own picture; None without a cache."""
        return None if self.prefix_sharing.startswith("none") else self.reader.whole(images, turns)

    def _judgements(self, prefix: Prefix | None, images, turns: list[str]) -> list[Judgement]:
        most = {"max_new_tokens": self.max_new_tokens}
        with self._listening() as log_odds:
            if prefix:
                tokens = prefix.generate(self.reader.ids(turns[0])[-1:], **most)
            else:
                tokens = self.reader.generate(images, turns, **most)
        replies = [self.reader.text(reply) for reply in tokens]
        p_unsafe = [None] * len(replies)
        if self.with_p_unsafe:
            p_unsafe = self._p_unsafe(prefix, images, turns, tokens, log_odds)
        read = [verdict.parse(reply, self.parser) for reply in replies]
        return [
            Judgement(r.verdict, p, r.rationale, reply)
            for r, p, reply in zip(read, p_unsafe, replies, strict=True)
        ]

    @property
    def _words(self) -> tuple[str, str]:
        """Safe and unsafe, as replies to this prompt write them."""
        words = {"reason": (" safe", " unsafe"), "taxonomy": ("Safe", "Unsafe")}
        return words.get(self.prompt, (verdict.SAFE, verdict.UNSAFE))

    def _listening(self):
        """Log-odds of unsafe over safe at each step while replies are written, of shape (rows,).

        Nothing is heard of words of several tokens: the later ones are not asked for on the way.
        """
        words = self._word_tokens
        if not self.with_p_unsafe or not words:
            return nullcontext([])
        safe, unsafe = words
        return record_last_logits(self.model, lambda last: last[:, unsafe] - last[:, safe])

    @property
    def _word_tokens(self) -> list[int]:
        """The two words, where each is one token; else none."""
        encode = self.processor.tokenizer.encode
        ids = [encode(word, add_special_tokens=False) for word in self._words]
        return sum(ids, []) if len(ids[0]) == len(ids[1]) == 1 else []

    def _p_unsafe(self, prefix, images, turns: list[str], replies, log_odds) -> list[float]:
        """As heard where the verdict was written; replies without one are led there and asked."""
        before = [self._until_verdict(self.reader.text(tokens)) for tokens in replies]
        words, found = self._word_tokens if log_odds else [], {}
        for i, tokens in enumerate(replies):
            for step, token in enumerate(tokens):
                if token in words and self.reader.text(tokens[:step]) == before[i]:
                    found[i] = log_odds[step][i]
        if rest := [i for i in range(len(replies)) if i not in found]:
            found |= zip(rest, self._log_odds(prefix, rest, images, turns, before), strict=True)
        return [float(found[i].sigmoid()) for i in range(len(replies))]

    def _until_verdict(self, reply: str) -> str:
        """The reply up to the place of its verdict; a reply without one is led there."""
        if self.prompt != "reason":
            return prompts.RATING if self.prompt == "taxonomy" else ""
        head, slot, _ = reply.rpartition(prompts.SLOT)
        return head + slot if slot else f"{reply} {prompts.SLOT}"

    def _log_odds(self, prefix: Prefix | None, rows: list[int], images, turns, before):
        """Log-odds of the whole words, right after what is before, in one forward pass; (rows,).

        They begin where their texts part: a tokenizer may join a word with what is before it.
        """
        twice = [i for i in rows for _ in self._words]
        ids: list[list[int]] = []
        last: list[int] = []
        for i in rows:
            pair = [self.reader.ids(turns[i] + before[i] + word) for word in self._words]
            ids += pair
            last += [len(one) - len(commonprefix(pair)) for one in pair]
        if prefix:
            starts = [len(self.reader.ids(turns[i])) - 1 for i in twice]
            more = [one[start:] for one, start in zip(ids, starts, strict=True)]
            found = prefix.log_probability(twice, more, last)
        else:
            texts = [turns[i] + before[i] + word for i in rows for word in self._words]
            inputs = self.reader.inputs([images[i] for i in twice], texts)
            ends = [inputs["input_ids"].shape[1]] * len(texts)
            found = log_probability(self.model, inputs, ends, last)
        return found[1::2] - found[::2]
