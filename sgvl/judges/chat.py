"""The chat judge: any vision-language model of transformers, asked in its own chat template."""

import copy
import hashlib
from collections.abc import Sequence
from contextlib import contextmanager

from sgvl import models, prompts, verdict
from sgvl.data import Sample
from sgvl.judges.base import Judge, Judgement, check_wording


class ChatJudge(Judge):
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
    score : whether P(unsafe) is computed, at little cost where each of the words is one token
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
        check_wording(name, prompt, policy_form, parser)
        self.name, self.batch_size = name, batch_size
        self.prompt, self.policy_form, self.parser = prompt, policy_form, parser
        self.max_new_tokens, self.score = max_new_tokens, score
        self.model_name, self.revision, self.dtype = model, revision, dtype
        self.model, self.processor = models.load(model, revision, dtype, device)

    def identity(self) -> dict:
        return {
            "kind": "chat",
            "model": self.model_name,
            "revision": self.revision,
            "weights": models.digest(self.model_name),
            "dtype": self.dtype,
            "pixels": dict(self.processor.image_processor.size),
            "template": hashlib.sha256(self.processor.chat_template.encode()).hexdigest(),
            "prompt": prompts.JUDGE[self.prompt],
            "policy_form": self.policy_form,
            "parser": [self.parser, verdict.VERSION],
            "max_new_tokens": self.max_new_tokens,
            "score": self.score,
        }

    def judge(self, image, policies, tags=()) -> list[Judgement]:
        return self.judge_batch([Sample("", image, tags)], policies)[0]

    def judge_batch(self, samples: Sequence[Sample], policies) -> list[list[Judgement]]:
        """A picture is read once, and each policy goes on from there, where the model's own prompt
        begins with the picture; otherwise every case is asked whole."""
        turns = [self._judge_turn(policy) for policy in policies]
        head = self._head(turns)
        if not head or len(policies) < 2:
            done = self.judge_cases([(sample, policy) for sample in samples for policy in policies])
            return [done[k : k + len(policies)] for k in range(0, len(done), len(policies))]
        rows: list[tuple[Judgement, ...]] = []
        for start in range(0, len(samples), self.batch_size):
            images = [sample.image for sample in samples[start : start + self.batch_size]]
            told = self._continued(images, head, [turn.removeprefix(head) for turn in turns])
            columns = [
                self._judgements(images, [turn] * len(images), *replies)
                for turn, replies in zip(turns, told, strict=True)
            ]
            rows += zip(*columns, strict=True)
        return [list(row) for row in rows]

    def judge_cases(self, cases: Sequence[tuple]) -> list[Judgement]:
        done: list[Judgement] = []
        for start in range(0, len(cases), self.batch_size):
            done += self._judge_some(cases[start : start + self.batch_size])
        return done

    def ask(self, images: Sequence, questions: Sequence[str]) -> list[str]:
        """Plain replies to questions about images, greedily decoded.

        One image a question, or a list of them, placed as ``prompts.illustrated`` says.
        """
        replies: list[str] = []
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            asked = list(map(self._question, questions[part], images[part]))
            shown = [[b["image"] for b in turn["content"] if "image" in b] for turn in asked]
            replies += map(self._text, self._reply(shown, [self._written(turn) for turn in asked]))
        return replies

    def _question(self, text: str, shown) -> dict:
        place = prompts.illustrated if isinstance(shown, list) else prompts.message
        return place(prompts.inert(text), shown)

    def _judge_turn(self, policy) -> str:
        return self._turn(prompts.judge_prompt(policy.render(self.policy_form), self.prompt))

    def _turn(self, text: str) -> str:
        return self._written(prompts.message(text, image=True))

    def _written(self, turn: dict) -> str:
        return self.processor.apply_chat_template(
            [turn], add_generation_prompt=True, tokenize=False
        )

    def _inputs(self, images: Sequence, texts: list[str]):
        batch = self.processor(text=texts, images=list(images), padding=True, return_tensors="pt")
        return batch.to(self.model.device)

    def _reply(self, images: Sequence, turns: list[str]) -> list[list[int]]:
        """The token ids of each reply, up to the longest."""
        return self._generate(**self._inputs(images, turns))

    def _generate(self, input_ids, **inputs) -> list[list[int]]:
        out = self.model.generate(
            input_ids=input_ids, **inputs, max_new_tokens=self.max_new_tokens, do_sample=False
        )
        return out[:, input_ids.shape[1] :].tolist()

    def _text(self, tokens: list[int]) -> str:
        return self.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    def _head(self, turns: Sequence[str]) -> str:
        """What all turns open with, up to the end of the picture; empty if nothing can be shared.

        The mark that ends a picture is one token, so a text may be cut there without a change.
        """
        end = getattr(self.model.config, "vision_end_token_id", None)
        mark = self.processor.tokenizer.convert_ids_to_tokens(end) if end is not None else ""
        heads = {turn[: turn.find(mark) + len(mark)] for turn in turns if mark and mark in turn}
        return heads.pop() if len(heads) == 1 else ""

    def _continued(self, images: Sequence, head: str, tails: list[str]) -> list[tuple]:
        """Token ids of the replies and their log-odds, for each way to go on after the pictures."""
        import torch

        read = self._inputs(images, [head] * len(images))
        with torch.no_grad():
            cache = self.model(**read, use_cache=True, logits_to_keep=1).past_key_values
        told = []
        for tail in tails:
            more = read["input_ids"].new_tensor([self._ids(tail)]).expand(len(images), -1)
            ids = torch.cat([read["input_ids"], more], 1)
            mask = torch.cat([read["attention_mask"], torch.ones_like(more)], 1)
            with self._listening() as log_odds:
                replies = self._generate(
                    input_ids=ids, attention_mask=mask, past_key_values=copy.deepcopy(cache)
                )
            told.append((replies, log_odds))
        return told

    def _judge_some(self, cases: Sequence[tuple]) -> list[Judgement]:
        images = [sample.image for sample, _ in cases]
        turns = [self._judge_turn(policy) for _, policy in cases]
        with self._listening() as log_odds:
            tokens = self._reply(images, turns)
        return self._judgements(images, turns, tokens, log_odds)

    def _judgements(self, images, turns: list[str], tokens, log_odds) -> list[Judgement]:
        replies = [self._text(reply) for reply in tokens]
        p_unsafe = [None] * len(replies)
        if self.score:
            p_unsafe = self._p_unsafe(images, turns, tokens, log_odds)
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

    def _ids(self, word: str) -> list[int]:
        return self.processor.tokenizer.encode(word, add_special_tokens=False)

    @contextmanager
    def _listening(self):
        """Log-odds of unsafe over safe at each step while replies are written, of shape (rows,).

        Nothing is heard of words of several tokens: the later ones are not asked for on the way.
        """
        safe, unsafe = map(self._ids, self._words)
        heard = []

        def listen(module, args, output):
            last = output.logits[:, -1].float()
            heard.append(last[:, unsafe[0]] - last[:, safe[0]])

        single = len(safe) == len(unsafe) == 1
        hook = self.model.register_forward_hook(listen) if self.score and single else None
        try:
            yield heard
        finally:
            if hook:
                hook.remove()

    def _p_unsafe(self, images, turns: list[str], replies: list[list[int]], log_odds) -> list:
        """As heard where the verdict was written; replies without one are led there and asked."""
        before = [self._until_verdict(self._text(tokens)) for tokens in replies]
        words = {self._ids(word)[0] for word in self._words if log_odds}
        found = {}
        for i, tokens in enumerate(replies):
            for step, token in enumerate(tokens):
                if token in words and self._text(tokens[:step]) == before[i]:
                    found[i] = log_odds[step][i]
        if rest := [i for i in range(len(replies)) if i not in found]:
            asked = [images[i] for i in rest], [turns[i] + before[i] for i in rest]
            safe, unsafe = (self._log_probability(*asked, word) for word in self._words)
            found |= zip(rest, unsafe - safe, strict=True)
        return [float(found[i].sigmoid()) for i in range(len(replies))]

    def _until_verdict(self, reply: str) -> str:
        """The reply up to the place of its verdict; a reply without one is led there."""
        if self.prompt != "reason":
            return prompts.RATING if self.prompt == "taxonomy" else ""
        head, slot, _ = reply.rpartition(prompts.SLOT)
        return head + slot if slot else f"{reply} {prompts.SLOT}"

    def _log_probability(self, images, before: list[str], word: str):
        """Log-probability of ``word`` right after each text, shape (rows,)."""
        import torch

        ids = self._ids(word)
        inputs = self._inputs(images, [text + word for text in before])
        with torch.no_grad():
            logits = self.model(**inputs, logits_to_keep=len(ids) + 1).logits[:, :-1]
        wanted = torch.tensor(ids, device=logits.device).view(1, -1, 1).expand(len(before), -1, 1)
        return logits.float().log_softmax(-1).gather(-1, wanted).sum(dim=(1, 2))
