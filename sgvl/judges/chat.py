"""The chat judge: any vision-language model of transformers, asked in its own chat template."""

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from os.path import commonprefix

import torch

from sgvl import models, prompts, verdict
from sgvl.data import Sample
from sgvl.judges.base import Judgement, SpeakingJudge
from sgvl.judges.prefix import Prefix, hearing, join, log_probability

# How far logits may be off when reading is cut in two, as a share of their size: rounding alone was
# seen to move nano's by 3e-7 in float32 and 7e-3 in bfloat16, wrong positions by 8e-2 and more.
EXACT, ROUGH = 1e-3, 0.04


class ChatJudge(SpeakingJudge):
    """Asks a chat model for a reply, reads the verdict from it, and scores P(unsafe).

    P(unsafe) compares the full words ``safe`` and ``unsafe`` as continuations of the reply up to
    its verdict: their log-probabilities, normalised over the two.

    Parameters
    ----------
    model : ``"nano"``, a folder, or a hub id
    prompt : name of a prompt in ``sgvl.prompts.JUDGE``
    policy_form : ``"full"`` (the document) or ``"brief"`` (its clauses); nano reads ``"brief"``
    parser : name of a parser in ``sgvl.verdict.PARSERS``
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
        score: bool = True,
        batch_size: int = 32,
        dtype: str = "float32",
        device: str = "cpu",
    ):
        super().__init__(name, prompt, policy_form, parser, max_new_tokens, score)
        self.batch_size = batch_size
        self.model_name, self.revision, self.dtype = model, revision, dtype
        self.commit = models.pin(model, revision)
        self.model, self.processor = models.load(model, self.commit, dtype, device)

    def identity(self) -> dict:
        return {
            "kind": "chat",
            "model": self.model_name,
            "revision": self.revision,
            "weights": self.commit or models.digest(self.model_name),
            "dtype": self.dtype,
            "pixels": dict(self.processor.image_processor.size),
            "template": hashlib.sha256(self.processor.chat_template.encode()).hexdigest(),
            **super().identity(),
        }

    def judge_batch(self, samples: Sequence[Sample], policies) -> list[list[Judgement]]:
        """A picture is read once, and each policy goes on from there, where the model can do so;
        otherwise every case is asked whole."""
        k = len(policies)
        if k < 2 or self.shares != "picture":
            done = self.judge_cases([(sample, policy) for sample in samples for policy in policies])
            return [done[i : i + k] for i in range(0, len(done), k)]
        turns = [self._judge_turn(policy) for policy in policies]
        rows: list[list[Judgement]] = []
        for start in range(0, len(samples), self.batch_size):
            images = [sample.image for sample in samples[start : start + self.batch_size]]
            told = self._judge_product(images, turns)
            rows += [told[i :: len(images)] for i in range(len(images))]
        return rows

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
            shown = [[b["image"] for b in turn["content"] if "image" in b] for turn in asked]
            inputs = self._inputs(shown, [self._written(turn) for turn in asked])
            replies += map(self._text, self._generate(**inputs))
        return replies

    def _question(self, text: str, shown) -> dict:
        place = prompts.illustrated if isinstance(shown, list) else prompts.message
        return place(prompts.inert(text), shown)

    def _judge_turn(self, policy) -> str:
        return self._turn(self._judge_prompt(policy))

    def _turn(self, text: str) -> str:
        return self._written(prompts.message(text, image=True))

    def _written(self, turn: dict) -> str:
        return self.processor.apply_chat_template(
            [{**turn, "content": list(map(self._inert, turn["content"]))}],
            add_generation_prompt=True,
            tokenize=False,
        )

    def _inert(self, block: dict) -> dict:
        if "text" not in block:
            return block
        return {
            **block,
            "text": prompts.inert(block["text"], models.control_tokens(self.processor)),
        }

    def _inputs(self, images: Sequence, texts: list[str]):
        batch = self.processor(text=texts, images=list(images), padding=True, return_tensors="pt")
        return batch.to(self.model.device)

    def _generate(self, input_ids, **inputs) -> list[list[int]]:
        """The token ids of each reply, up to the longest."""
        out = self.model.generate(
            input_ids=input_ids, **inputs, max_new_tokens=self.max_new_tokens, do_sample=False
        )
        return out[:, input_ids.shape[1] :].tolist()

    def _text(self, tokens: list[int]) -> str:
        return self.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    @cached_property
    def shares(self) -> str:
        """What is read once for many verdicts: ``"picture"``, or ``"nothing: "`` and why.

        Found by trying: two steps of a reply that goes on from its picture must have the logits of
        one that is asked whole. A model without a cache, or with positions that are not told
        right, fails here and not in its answers.
        """
        from PIL import Image

        if self.model.generation_config.use_cache is False:
            return "nothing: its settings turn the cache off"
        turns = [
            self._turn(prompts.judge_prompt(text, self.prompt))
            for text in ("Prohibited: a.", "Permitted: a, b, c.")
        ]
        if len({self._head(turn) for turn in turns}) > 1:
            return "nothing: its prompt has the policy before the picture"
        images, word = [Image.new("RGB", (320, 224), "teal")], self._ids(turns[0])[-1]
        steps = {"max_new_tokens": 2, "prefix_allowed_tokens_fn": lambda *_: [word]}
        try:
            with hearing(self.model) as whole:
                inputs = self._inputs(images * 2, turns)
                self.model.generate(**inputs, do_sample=False, **steps)
            with hearing(self.model) as parts:
                self._under(self._seen(images, turns), turns).generate([word], **steps)
        except Exception as error:  # whatever it is that this model cannot do
            return f"nothing: {type(error).__name__}: {error}".splitlines()[0]
        one, other = torch.stack(whole[-2:]), torch.stack(parts[-2:])
        gap = (one - other).norm() / (one - one.mean(-1, keepdim=True)).norm()
        if gap > (EXACT if self.dtype == "float32" else ROUGH):
            return f"nothing: after its cache its logits are {gap:.1%} off"
        return "picture"

    def _head(self, turn: str) -> str:
        """A turn up to the end of its picture; empty if its place cannot be told."""
        for name in ("boi_token", "image_token"):
            mark = getattr(self.processor, name, None)
            if mark and mark in turn:
                return turn[: turn.index(mark) + len(mark)]
        return ""

    def _seen(self, images: Sequence, turns: Sequence[str]) -> Prefix:
        """What all turns open with, up to the end of each picture."""
        return Prefix.read(self.model, self._inputs(images, [self._head(turns[0])] * len(images)))

    def _under(self, seen: Prefix, turns: Sequence[str]) -> Prefix:
        """The rest of each turn but for its last token, about each picture: (turn, picture)."""
        start = len(self._ids(self._head(turns[0])))
        return join([seen.then(self._ids(turn)[start:-1]) for turn in turns])

    def _whole(self, images: Sequence, turns: Sequence[str]) -> Prefix | None:
        """Each turn but for its last token, about its own picture; None without a cache."""
        if self.shares.startswith("nothing"):
            return None
        inputs = self._inputs(images, turns)
        shape = inputs["input_ids"].shape
        return Prefix.read(
            self.model, {k: v[:, :-1] if v.shape == shape else v for k, v in inputs.items()}
        )

    def _judge_product(self, images: list, turns: Sequence[str]) -> list[Judgement]:
        """Every turn about every picture: (turn, picture), flat."""
        seen, at_once = self._seen(images, turns), max(1, self.batch_size // len(images))
        told: list[Judgement] = []
        for start in range(0, len(turns), at_once):
            part = turns[start : start + at_once]
            asked = [turn for turn in part for _ in images]
            told += self._judgements(self._under(seen, part), images * len(part), asked)
        return told

    def _judgements(self, prefix: Prefix | None, images, turns: list[str]) -> list[Judgement]:
        with self._listening() as log_odds:
            if prefix:
                tokens = prefix.generate(
                    self._ids(turns[0])[-1:], max_new_tokens=self.max_new_tokens
                )
            else:
                tokens = self._generate(**self._inputs(images, turns))
        replies = [self._text(reply) for reply in tokens]
        p_unsafe = [None] * len(replies)
        if self.score:
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

    def _ids(self, text: str) -> list[int]:
        """Token ids of a text, its picture one token."""
        return self.processor.tokenizer(text).input_ids

    def _listening(self):
        """Log-odds of unsafe over safe at each step while replies are written, of shape (rows,).

        Nothing is heard of words of several tokens: the later ones are not asked for on the way.
        """
        words = self._word_tokens
        if not self.score or not words:
            return nullcontext([])
        safe, unsafe = words
        return hearing(self.model, lambda last: last[:, unsafe] - last[:, safe])

    @property
    def _word_tokens(self) -> list[int]:
        """The two words, where each is one token; else none."""
        encode = self.processor.tokenizer.encode
        ids = [encode(word, add_special_tokens=False) for word in self._words]
        return sum(ids, []) if len(ids[0]) == len(ids[1]) == 1 else []

    def _p_unsafe(self, prefix, images, turns: list[str], replies, log_odds) -> list[float]:
        """As heard where the verdict was written; replies without one are led there and asked."""
        before = [self._until_verdict(self._text(tokens)) for tokens in replies]
        words, found = self._word_tokens if log_odds else [], {}
        for i, tokens in enumerate(replies):
            for step, token in enumerate(tokens):
                if token in words and self._text(tokens[:step]) == before[i]:
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
            pair = [self._ids(turns[i] + before[i] + word) for word in self._words]
            ids += pair
            last += [len(one) - len(commonprefix(pair)) for one in pair]
        if prefix:
            starts = [len(self._ids(turns[i])) - 1 for i in twice]
            more = [one[start:] for one, start in zip(ids, starts, strict=True)]
            found = prefix.log_probability(twice, more, last)
        else:
            texts = [turns[i] + before[i] + word for i in rows for word in self._words]
            inputs = self._inputs([images[i] for i in twice], texts)
            ends = [inputs["input_ids"].shape[1]] * len(texts)
            found = log_probability(self.model, inputs, ends, last)
        return found[1::2] - found[::2]
