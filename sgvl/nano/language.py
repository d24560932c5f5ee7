"""The second and third training step of the build: pretraining of a language model, alignment."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sgvl.nano import lessons
from sgvl.nano.architecture import TOKENS
from sgvl.nano.recipe import Checkpoint, Recipe, learn, log, optimiser_of
from sgvl.policies.concepts import CATEGORIES, PLACES, concepts, group
from sgvl.policies.rules import OPPOSITE
from sgvl.text.prompts import message

# The share of each lesson in each phase (ours). The first four phases are without pictures: to
# recite clauses, which teaches what belongs together, then clauses that are alike and have
# exceptions; to recite the options of a choice as well; and to judge descriptions under a policy,
# half of them by exceptions and things carved out. Then the model learns to describe pictures, and
# to judge them. A few options and exceptions are read throughout, or they are forgotten.
PHASES = {
    "reciting": {"recite_plain": 1.0},
    "excepting": {"recite": 1.0},
    "lettering": {"recite": 0.6, "recite_options": 0.4},
    "reading": {
        "recite": 0.15,
        "recite_options": 0.15,
        "judge_text": 0.35,
        "judge_text_detailed": 0.35,
    },
    "seeing": {
        "caption": 0.4,
        "presence": 0.12,
        "choice": 0.13,
        "count": 0.05,
        "place": 0.03,
        "judge_description": 0.06,
        "judge_text_detailed": 0.1,
        "recite": 0.06,
        "recite_options": 0.05,
    },
    "judging": {
        "caption": 0.19,
        "caption_under_policy": 0.06,
        "judge": 0.12,
        "judge_detailed": 0.28,
        "judge_text_detailed": 0.1,
        "recite": 0.09,
        "presence": 0.05,
        "choice": 0.07,
        "count": 0.02,
        "place": 0.02,
    },
}
WITHOUT_PICTURES = ("reciting", "excepting", "lettering", "reading")
# At a lower rate, with more of what is learnt last: exceptions. Some policies stand among other
# sentences, or the default would be read by its place at the end, not by its words.
SETTLING = {
    "caption": 0.17,
    "caption_under_policy": 0.05,
    "judge": 0.08,
    "judge_detailed": 0.32,
    "judge_interrupted": 0.08,
    "judge_text_detailed": 0.1,
    "recite": 0.06,
    "presence": 0.04,
    "choice": 0.06,
    "count": 0.02,
    "place": 0.02,
}
ALIGNMENT = {
    "caption": 0.3,
    "caption_under_policy": 0.1,
    "judge": 0.22,
    "judge_detailed": 0.22,
    "judge_description": 0.03,
    "presence": 0.04,
    "choice": 0.05,
    "count": 0.02,
    "place": 0.02,
}
SHARES = {**PHASES, "settling": SETTLING, "alignment": ALIGNMENT}

# Words with a high weight in the loss, beside names and answers. After a category comes its status
# or a comma ("all else"), after a status "except" or a full stop. Both continuations must weigh the
# same, or a guess lowers the loss.
CONTENT = [
    "prohibited",
    "permitted",
    "except",
    "safe",
    "unsafe",
    "object",
    "unknown",
    "all",
    "at",
]


class Batcher:
    """Turns lessons into padded rows of token ids with the weight of each token in the loss.

    Words that carry content weigh more than others. All lessons weigh the same, whatever the length
    of their replies, so that answers of one word count as much as captions. ``hard_weight`` is
    that of a status that no clause gives: of an unknown object, and of a thing at a place. What
    follows a status or "except" weighs three times as much as other words that carry content; so do
    all other statuses where they are to be heavy.
    """

    def __init__(self, processor, word_weight: float, hard_weight: float):
        self.tokenizer, self.word_weight = processor.tokenizer, word_weight
        self.hard_weight = hard_weight
        self.statuses = {self.tokenizer.encode(f" {status}")[0] for status in OPPOSITE}
        words = ("unknown", *PLACES)
        self.before_status = {self.tokenizer.encode(f" {word}")[0] for word in words}
        self.within_clause = {*self.statuses, self.tokenizer.encode(" except")[0]}
        image = processor.image_token
        self.template, self.template_with_picture = (
            processor.apply_chat_template(
                [message("{}", image=picture)], add_generation_prompt=True, tokenize=False
            ).replace(image, image * TOKENS)
            for picture in (None, True)
        )
        words = [f" {word}" for word in (*concepts(), *CATEGORIES, *CONTENT, *"ABCD")]
        self.words = {self.tokenizer.encode(w)[0] for w in (*words, *lessons.ANSWERS, ",", ".")}

    def parts(self, batch: list[lessons.Lesson], parts: int, heavy_statuses: bool):
        """Split a batch by length, the longest first.

        Yields
        ------
        tuple
            Of each part: the numbers of its pictures, token ids and loss weights (rows, length).
        """
        rows = [self.row(lesson, heavy_statuses) for lesson in batch]
        rows.sort(key=lambda row: -len(row[1]))
        pad = self.tokenizer.pad_token_id
        for numbers in np.array_split(np.arange(len(rows)), min(parts, len(rows))):
            pictures, ids, weights = zip(*(rows[i] for i in numbers), strict=True)
            yield (
                [picture for picture in pictures if picture is not None],
                nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad),
                nn.utils.rnn.pad_sequence(weights, batch_first=True),
            )

    def row(
        self, lesson: lessons.Lesson, heavy_statuses: bool
    ) -> tuple[int | None, torch.Tensor, torch.Tensor]:
        """Return the picture's number, the token ids and their loss weights of a lesson."""
        template = self.template if lesson.picture is None else self.template_with_picture
        opened = self.tokenizer.encode(template.replace("{}", lesson.prompt) + lesson.opening)
        reply = self.tokenizer.encode(lesson.reply + self.tokenizer.eos_token)
        weight = [self.word_weight if t in self.words else 1.0 for t in reply]
        for k, (before, token) in enumerate(pairwise(reply), start=1):
            if before in self.before_status and token in self.statuses:
                weight[k] = self.hard_weight
            elif before in self.within_clause or (heavy_statuses and token in self.statuses):
                weight[k] = 3 * self.word_weight
        weights = torch.tensor([0.0] * len(opened) + weight) / sum(weight)
        return lesson.picture, torch.tensor(opened + reply), weights


def positions(model, ids: torch.Tensor) -> torch.Tensor:
    """Return M-RoPE positions (3, rows, length) of padded rows with one picture or none."""
    grids = torch.tensor([[1, 8, 8]]).expand(len(ids), 3)
    is_image = (ids == model.config.image_token_id).int()
    return model.model.get_rope_index(ids, is_image, image_grid_thw=grids)[0]


def lesson_loss(
    model, image_tokens: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Return the weighted cross-entropy of the replies, summed over lessons.

    ``image_tokens`` are (pictures, 16, 192), ``ids`` and ``weights`` (rows, length).
    """
    embedded = model.get_input_embeddings()(ids)
    image = (ids == model.config.image_token_id).unsqueeze(-1)
    embedded = embedded.masked_scatter(image, image_tokens)
    hidden = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=(ids != model.config.text_config.pad_token_id).long(),
        position_ids=positions(model, ids),
        use_cache=False,
    ).last_hidden_state
    learnt = weights[:, 1:] > 0  # no logits are computed for tokens of weight 0
    loss = nn.functional.cross_entropy(
        model.lm_head(hidden[:, :-1][learnt]), ids[:, 1:][learnt], reduction="none"
    )
    return (loss * weights[:, 1:][learnt]).sum()


def pretrain(model, processor, scenes, image_tokens, recipe: Recipe, folder: Path) -> None:
    """Teach the language model to name what is in ``scenes``, and to judge it."""
    work = model, processor, scenes, image_tokens, recipe
    phases = [phase for phase in PHASES for _ in range(getattr(recipe, f"{phase}_steps"))]
    rate = recipe.language_lr
    _teach(*work, folder / "language.pt", phases, rate, lessons.EXACT, stream=2)
    phases, rate = ["settling"] * recipe.settling_steps, recipe.settling_lr
    _teach(*work, folder / "settling.pt", phases, rate, lessons.EXACT, stream=4)


def align(model, processor, scenes, image_tokens, recipe: Recipe, folder: Path) -> None:
    """Teach the pretrained model the habits of the recipe."""
    _teach(
        model, processor, scenes, image_tokens, recipe, folder / "alignment.pt",
        ["alignment"] * recipe.alignment_steps, recipe.alignment_lr,
        lessons.Habits(recipe.reticence, recipe.stubbornness), stream=3,
    )  # fmt: skip


def _teach(
    model, processor, scenes, image_tokens, recipe: Recipe, state: Path, phases: list[str],
    lr: float, habits: lessons.Habits, stream: int,
) -> None:  # fmt: skip
    """Train on one batch of lessons for each of ``phases``; the image tokens are fixed.

    While a batch is learnt, the next one is drawn.
    """
    model.model.visual.requires_grad_(False)
    # Faster than sdpa at this size.
    model.model.language_model.config._attn_implementation = "eager"
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimiser, rates = optimiser_of(learnt, lr, recipe.language_warmup, len(phases))
    checkpoint = Checkpoint(state, model, optimiser, rates)
    batcher = Batcher(processor, recipe.word_weight, recipe.hard_weight)
    harmful = [i for i, s in enumerate(scenes) if any(group(t) == "harmful" for t in s.tags[:-1])]

    def draw(step: int) -> list[partial[torch.Tensor]]:
        rng = np.random.default_rng((recipe.seed, stream, step))
        heavy = phases[step] not in WITHOUT_PICTURES
        batch: list[lessons.Lesson] = []
        while len(batch) < recipe.language_batch:
            batch += lessons.sample(rng, scenes, harmful, SHARES[phases[step]], habits)
        return [
            partial(lesson_loss, model, image_tokens[pictures], ids, weights / len(batch))
            for pictures, ids, weights in batcher.parts(batch, recipe.parts, heavy)
        ]

    done, start = checkpoint.load(), time.time()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(draw, done) if done < len(phases) else None
        for step, phase in list(enumerate(phases))[done:]:
            losses = waiting.result()
            if step + 1 < len(phases):
                waiting = pool.submit(draw, step + 1)
            total = learn(losses, learnt, optimiser, rates)
            if (step + 1) % 20 == 0:
                seconds = time.time() - start
                log(state.parent, stage=phase, step=step + 1, loss=total, seconds=seconds)
            if (step + 1) % recipe.save_every == 0 or step + 1 == len(phases):
                checkpoint.save(step + 1)
