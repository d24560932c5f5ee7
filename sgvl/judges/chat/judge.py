"""The chat judge: any vision-language model of transformers, asked in its own chat template."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from itertools import groupby, zip_longest
from os.path import commonprefix

import torch
from pydantic import PositiveInt

from sgvl.common.errors import InputError
from sgvl.common.types import Device, Dtype
from sgvl.data.images import image_digest
from sgvl.judges.base import (
    Form,
    Judgement,
    Results,
    SpeakingJudge,
    by_picture,
    default_parser,
    default_prompt,
    once_a_picture,
)  # fmt: skip
from sgvl.judges.chat.phrases import Phrases, memory_of
from sgvl.judges.chat.prefix import log_probability, placed, record_last_logits
from sgvl.judges.chat.reader import Reader
from sgvl.judges.chat.rows import Rows
from sgvl.text import prompts, verdict

# Two policies of different lengths, to try a judge with before its first answer.
TRIALS = (
    "Prohibited: a knife.",
    "Permitted: a dog. Prohibited: a knife, a car, wine, an axe, a pipe.",
)


class ChatJudge(SpeakingJudge):
    """Asks a chat model for a reply, parses its verdict, and computes P(unsafe).

    P(unsafe) compares the full words ``safe`` and ``unsafe`` as continuations of the reply up to
    its verdict: their log-probabilities, normalised over the two.

    Parameters
    ----------
    id : name in files, tables and claims
    model : ``"nano"``, a folder, or a hub id
    revision, dtype, device : see ``sgvl.models.chat_model.ChatModel``
    prompt : name of a prompt in ``sgvl.text.prompts.JUDGE``; None: ``"reason"`` for nano and what
        was trained here, ``"answer"`` for other models
    policy_form : ``"full"`` (the document), ``"brief"`` (its clauses, as nano reads it), or another
        form of ``Policy.render``
    parser : name of a parser in ``sgvl.text.verdict.PARSERS``; None: ``default_parser(prompt)``
    max_new_tokens : length limit of a reply, in tokens
    with_p_unsafe : whether P(unsafe) is computed: while a reply is written where each of the words
        is one token, else in one more forward pass
    batch_size : cases in one forward pass; does not change answers
    max_pixels : of a picture, for models whose processor has such a limit, as Qwen-VL's; by default
        the processor's own. A picture of 12 megapixels is 15,301 tokens on Qwen2.5-VL.
    """

    reader_class = Reader
    share_prefix = True  # without, each case is read whole: the same answers, to compare with

    def __init__(
        self,
        id: str = "chat",
        model: str = "nano",
        revision: str | None = None,
        prompt: prompts.JudgePrompt | None = None,
        policy_form: Form = "brief",
        parser: verdict.Parser | None = None,
        max_new_tokens: PositiveInt = 120,
        with_p_unsafe: bool = True,
        batch_size: PositiveInt = 32,
        dtype: Dtype = "float32",
        device: Device = "cpu",
        max_pixels: PositiveInt | None = None,
    ):
        prompt = prompt or default_prompt(model)
        parser = parser or default_parser(prompt)
        super().__init__(id, prompt, policy_form, parser, max_new_tokens, with_p_unsafe)
        self.batch_size = batch_size
        self.pictures_at_once = 4 * batch_size  # enough to batch prompts of similar length
        self.reader = self.reader_class(model, revision, dtype, device, max_pixels)
        self.model, self.processor = self.reader.model, self.reader.processor

    def identity(self) -> dict:
        return {"kind": "chat", **self.reader.identity(self._template), **super().identity()}

    def reply_identity(self) -> dict:
        return {"kind": "chat", **self.reader.identity(), "max_new_tokens": self.max_new_tokens}

    def results(self, cases) -> Results:
        """Yield judgements, and errors of the cases whose picture and prompt exceed the context."""
        return self._fitting(cases) if self.reads_policy else once_a_picture(self._fitting, cases)

    def _fitting(self, cases) -> Results:
        requests, known = self._requests(cases), {}  # errors by prompt and size
        for (sample, _), prompt in zip(cases, requests, strict=True):
            key = prompt, sample.image.size
            if key not in known:
                known[key] = self.reader.over_context(prompt, [sample.image], self.max_new_tokens)
        wrong = [
            known[text, case[0].image.size] for text, case in zip(requests, cases, strict=True)
        ]
        errors = {i: error for i, error in enumerate(wrong) if error}
        rest = [i for i in range(len(cases)) if i not in errors]
        for batch in self._judged([cases[i] for i in rest], [requests[i] for i in rest]):
            yield [(rest[k], judgement, "") for k, judgement in batch]
        if errors:
            yield [(i, None, error) for i, error in errors.items()]

    def _judged(self, cases, requests: list[str]) -> Iterator[list[tuple[int, Judgement]]]:
        """Yield judgements; what several cases share is read once, where it can be.

        Cases of similar length are read together, so that little is padding.
        """
        sharing = self.prefix_sharing if self.share_prefix and len(cases) > 1 else "none"
        if sharing == "picture":
            yield from self._pictures_first(cases, requests)
            return
        rest: list[int] = []
        for indices, k in _grids(cases):
            if sharing == "policy" and len(indices) > k:
                images = [cases[i][0].image for i in indices[::k]]
                for batch in self._policies_first(images, [requests[i] for i in indices[:k]]):
                    yield [(indices[cell], judgement) for cell, judgement in batch]
            else:
                rest += indices
        yield from self._one_by_one(cases, requests, sorted(rest))

    def _requests(self, cases) -> list[str]:
        """Return the prompt of each case; policies come many times, and are written once."""
        policies = {policy.digest: policy for _, policy in cases}
        written = {digest: self._prompt(policy) for digest, policy in policies.items()}
        return [written[policy.digest] for _, policy in cases]

    def replies(self, requests) -> Results:
        images, texts = [sample.image for sample, _ in requests], [text for _, text in requests]
        start, how = 0, (self.max_new_tokens, self._at_once, self._generated)
        for batch in self.reader.replies(images, texts, *how):
            yield [(i, reply, reply.error) for i, reply in enumerate(batch, start)]
            start += len(batch)

    def _one_by_one(self, cases, requests, indices: Sequence[int]) -> Iterator[list[tuple]]:
        order = sorted(indices, key=lambda i: len(requests[i]))
        for start in range(0, len(order), self._at_once):
            part = order[start : start + self._at_once]
            images, texts = [cases[i][0].image for i in part], [requests[i] for i in part]
            judgements = self._judgements(self._whole(images, texts), images, texts)
            yield _numbered(part, judgements)

    def _prompt(self, policy) -> str:
        """Return the prompt for a policy.

        Raises InputError for a policy that leaves no room for the reply, pictures apart.
        """
        prompt = self._with_picture(self.request(policy))
        tokens = len(self.reader.ids(prompt))
        room = self.model.config.get_text_config().max_position_embeddings - self.max_new_tokens
        if tokens > room:
            raise InputError(
                f"judge {self.id}: policy {policy.name} takes {tokens} tokens in the form "
                f"{self.policy_form!r}; beside max_new_tokens, the context has room for {room}"
            )
        return prompt

    @property
    def _template(self) -> str | None:
        """The template in place of the model's own: of Llama Guard, which holds Meta's policy."""
        return self.reader.guard_turn if self.prompt == "llama_guard" else None

    def _with_picture(self, text: str) -> str:
        elsewhere, turn = prompts.addressed(text)
        return self.reader.prompt(prompts.illustrated(turn, [True]), self._template, **elsewhere)

    @cached_property
    def prefix_sharing(self) -> str:
        """Return what one forward pass reads for several cases, as proved by ``Reader.prove``.

        Raises InputError for a judge whose model does not receive the policy or the picture, or
        cannot be asked at all.
        """
        try:
            return self._prove()
        except InputError:
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise InputError(
                f"judge {self.id}: model {self.reader.name!r} cannot be asked ({why})"
            ) from error

    def _prove(self) -> str:
        # Longer than a sliding window, which shows only then.
        trials = [TRIALS[0], " ".join([TRIALS[1]] * (1 + self.reader.window // 15))]
        requests = [self._with_picture(prompts.judge_prompt(text, self.prompt)) for text in trials]
        if "{policy}" in prompts.JUDGE[self.prompt]:
            for text, request in zip(trials, requests, strict=True):
                if _letters(text) not in _letters(self.reader.received(request)):
                    raise InputError(
                        f"judge {self.id}: the policy does not reach model {self.reader.name!r}, "
                        f"whose chat template leaves it out of the prompt {self.prompt}; "
                        "choose another prompt or kind of judge"
                    )
        return self.reader.prove(requests)

    @property
    def _at_once(self) -> int:
        return 1 if "one at a time" in self.prefix_sharing else self.batch_size

    def _pictures_first(self, cases, requests) -> Iterator[list[tuple[int, Judgement]]]:
        """Judge cases whose prompts open with the picture, ``batch_size`` pictures at a time."""
        own = by_picture(sample for sample, _ in cases)
        own.sort(key=lambda same: max(len(requests[i]) for i in same))
        for first in range(0, len(own), self.batch_size):
            some = own[first : first + self.batch_size]
            own_requests = [requests[i] for same in some for i in same]
            read = self.reader.read_images([cases[i[0]][0].image for i in some], own_requests)
            places = {i: place for place, same in enumerate(some) for i in same}
            seen = [Phrases() for _ in some]
            order = sorted(places, key=lambda i: len(requests[i]))
            for start in range(0, len(order), self.batch_size):
                part = order[start : start + self.batch_size]
                images, texts = [cases[i][0].image for i in part], [requests[i] for i in part]
                rows = self.reader.add_prompts(read, [places[i] for i in part], texts)
                known = [seen[places[i]] for i in part]
                yield _numbered(part, self._judgements(rows, images, texts, known))

    def _policies_first(self, images: list, requests: Sequence[str]) -> Iterator[list[tuple]]:
        """Judge a grid whose prompts open with the policy; its cells are in order of pictures.

        Pictures of one size at a time: nothing may be padded after the policy.
        """
        by_size = sorted(range(len(images)), key=lambda i: images[i].size)
        batches = []
        for _, alike in groupby(by_size, key=lambda i: images[i].size):
            own = list(alike)
            batches += [own[i : i + self.batch_size] for i in range(0, len(own), self.batch_size)]
        for column, request in enumerate(requests):
            opening = self.reader.read_before_image(request)
            for part in batches:
                some, texts = [images[i] for i in part], [request] * len(part)
                read = self.reader.add_images(some, request, opening)
                cells = [i * len(requests) + column for i in part]
                yield _numbered(cells, self._judgements(read, some, texts))

    def _whole(self, images: Sequence, requests: Sequence[str]) -> Rows | None:
        """Read each prompt with its own picture, but for its last token; None without a cache."""
        if self.prefix_sharing.startswith("none"):
            return None
        return self.reader.read_whole(images, requests)

    def _judgements(
        self, rows: Rows | None, images, requests: list[str], seen: Sequence[Phrases] = ()
    ) -> list[Judgement]:
        """Judge prompts that rows have read; ``seen`` are phrases about the picture of each."""
        limit, part = {"max_new_tokens": self.max_new_tokens}, self._log_odds_at
        if rows:
            tokens, odds = self._written(rows, images, requests, seen, part=part, **limit)
        else:
            record = partial(record_last_logits, self.reader.speaker, part)
            with record() if part else nullcontext([]) as steps:
                tokens = self.reader.generate(images, requests, **limit)
            odds = list(zip(*steps, strict=True)) or [()] * len(tokens)
        replies = [self.reader.text(reply) for reply in tokens]
        p_unsafe = [None] * len(replies)
        if self.with_p_unsafe:
            p_unsafe = self._p_unsafe(rows, images, requests, tokens, odds)
        return list(map(self.parse, replies, p_unsafe))

    def _generated(self, images: list, requests: list[str], **limit) -> list[list[int]]:
        """Return the token ids of replies to prompts, as ``ChatModel.generate`` does."""
        if rows := self._whole(images, requests):
            return self._written(rows, images, requests, **limit)[0]
        return self.reader.generate(images, requests, **limit)

    def _written(self, rows: Rows, images, requests, seen: Sequence[Phrases] = (), **options):
        """Return what ``Rows.generate`` does of prompts that rows have read."""
        last, drafters = self.reader.ids(requests[0])[-1:], []
        if options["max_new_tokens"] > 1:
            memory, digests = memory_of(self._vocabulary), {}
            for own in images:
                pictures = own if isinstance(own, list) else [own]
                digests[id(own)] = digests.get(id(own)) or tuple(map(image_digest, pictures))
            drafters = [
                memory.drafter((*digests[id(own)], text), self.reader.ids(text), about or Phrases())
                for own, text, about in zip_longest(images, requests, seen)
            ]
        return rows.generate(last, drafters, **options)

    @cached_property
    def _vocabulary(self) -> int:
        """A hash of the vocabulary: what is known of replies serves all judges that share it."""
        return hash(frozenset(self.processor.tokenizer.get_vocab().items()))

    @property
    def _words(self) -> tuple[str, str]:
        """Safe and unsafe, as replies to this prompt write them."""
        return prompts.OPENINGS.get(self.prompt, ("", "", (verdict.SAFE, verdict.UNSAFE)))[2]

    @property
    def _log_odds_at(self) -> Callable | None:
        """Function of logits (..., vocabulary): the log-odds of unsafe over safe.

        None if P(unsafe) is not computed, or the two words are not single tokens.
        """
        words = self._word_tokens if self.with_p_unsafe else []
        return (lambda logits: logits[..., words[1]] - logits[..., words[0]]) if words else None

    @property
    def _word_tokens(self) -> list[int]:
        """The ids of the two words, where each is one token; else an empty list."""
        encode = self.processor.tokenizer.encode
        ids = [encode(word, add_special_tokens=False) for word in self._words]
        return sum(ids, []) if len(ids[0]) == len(ids[1]) == 1 else []

    def _p_unsafe(self, read, images, requests: list[str], replies, log_odds) -> list[float]:
        """Compute P(unsafe) of each reply.

        Uses the log-odds recorded at the verdict token; for replies without a verdict, appends
        ``Answer:`` and runs one more forward pass.
        """
        before = [self._until_verdict(self.reader.text(tokens)) for tokens in replies]
        words, odds = self._word_tokens, {}
        for i, tokens in enumerate(replies):
            for step, (token, recorded) in enumerate(zip(tokens, log_odds[i], strict=False)):
                if token in words and self.reader.text(tokens[:step]) == before[i]:
                    odds[i] = recorded
        if rest := [i for i in range(len(replies)) if i not in odds]:
            odds |= zip(rest, self._log_odds(read, rest, images, requests, before), strict=True)
        return [float(odds[i].sigmoid()) for i in range(len(replies))]

    def _until_verdict(self, reply: str) -> str:
        """Return the reply up to its verdict, opened as the prompt has it where there is none.

        Replies that reason first are kept; a rating comes first, so that only one opening fits.
        """
        opening, *_ = prompts.OPENINGS.get(self.prompt, ("",))
        if self.prompt not in prompts.REASON_FIRST:
            return opening
        head, slot, _ = reply.rpartition(opening)
        return head + slot if slot else f"{reply} {opening}"

    def _log_odds(self, read: Rows | None, rows: list[int], images, requests, before):
        """Return the log-odds of the full words right after ``before``, shape (rows,).

        One forward pass for all. The words begin where their token ids part: a tokenizer may join a
        word with what stands before it.
        """
        twice = [i for i in rows for _ in self._words]
        ids: list[list[int]] = []
        last: list[int] = []
        for i in rows:
            pair = [self.reader.ids(requests[i] + before[i] + word) for word in self._words]
            ids += pair
            last += [len(one) - len(commonprefix(pair)) for one in pair]
        if read:
            starts = [len(self.reader.ids(requests[i])) - 1 for i in twice]
            more = [one[start:] for one, start in zip(ids, starts, strict=True)]
            logs = read.log_probability(twice, more, last)
        else:
            texts = [requests[i] + before[i] + word for i in rows for word in self._words]
            pictures, size = [images[i] for i in twice], min(self._at_once, len(texts))
            parts = []
            for start in range(0, len(texts), size):
                part = slice(start, start + size)
                inputs = placed(self.model, self.reader.inputs(pictures[part], texts[part]))
                ends = [inputs["input_ids"].shape[1]] * len(texts[part])
                logits = partial(self._logits, inputs)
                parts.append(log_probability(inputs["input_ids"], ends, last[part], logits))
            logs = torch.cat(parts)
        return logs[1::2] - logs[::2]

    def _logits(self, inputs: dict, at: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.model(**inputs, logits_to_keep=at).logits


def _letters(text: str) -> str:
    return "".join(text.split())


def _numbered(indices: Sequence[int], judgements: Sequence[Judgement]) -> list[tuple]:
    return list(zip(indices, judgements, strict=True))


def _grids(cases: Sequence[tuple]) -> Iterator[tuple[list[int], int]]:
    """Yield grids, pictures that come under the same k policies: their indices, and k."""
    grids: dict[tuple, list[int]] = {}
    for indices in by_picture(sample for sample, _ in cases):
        grids.setdefault(tuple(cases[i][1].digest for i in indices), []).extend(indices)
    for policies, indices in grids.items():
        yield indices, len(policies)
