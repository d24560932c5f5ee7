"""The second step of the build: a language model that learns its lessons on a finished tower."""

import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sgvl.concepts import CATEGORIES, concepts
from sgvl.nano import lessons
from sgvl.nano.architecture import TOKENS
from sgvl.nano.training import Checkpoint, Recipe, log, optimiser_of
from sgvl.prompts import message

# What each kind of lesson weighs in the mix (ours): first seeing, then seeing and judging.
SEEING = {"caption": 0.6, "presence": 0.15, "count": 0.08, "place": 0.05, "choice": 0.12}
JUDGING = {
    "caption": 0.1,
    "caption_under_policy": 0.06,
    "judge": 0.28,
    "judge_given": 0.4,
    "presence": 0.06,
    "count": 0.01,
    "place": 0.01,
    "choice": 0.08,
}

CONTENT = ["prohibited", "permitted", "safe", "unsafe", "object", "unknown", "all", "here"]
CONTENT += ["yes", "no", *"ABCD"]
LONG = 24.0  # the summed weight of a reply beyond which it counts no more


class Batcher:
    """Lessons as padded rows of token ids, with the weight of each token in the loss.

    The words that carry content weigh more than the articles and commas between them, and a row
    weighs its words up to ``LONG`` of them.
    """

    def __init__(self, processor, word_weight: float):
        self.tokenizer, self.word_weight = processor.tokenizer, word_weight
        turn = processor.apply_chat_template(
            [message("{}", image=True)], add_generation_prompt=True, tokenize=False
        )
        image = processor.image_token
        self.turn = turn.replace(image, image * TOKENS)
        words = [*concepts(), *CATEGORIES, *CONTENT]
        self.words = {self.tokenizer.encode(" " + word)[0] for word in words}

    def parts(self, batch: list[lessons.Lesson], parts: int):
        """The batch in parts of like length: pictures, token ids and weights of each."""
        batch = sorted(batch, key=lambda lesson: len(lesson.prompt + lesson.given + lesson.reply))
        for rows in np.array_split(np.arange(len(batch)), min(parts, len(batch))):
            part = [batch[i] for i in rows]
            yield [lesson.picture for lesson in part], *self(part)

    def __call__(self, batch: list[lessons.Lesson]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and loss weights, both (rows, length)."""
        rows, weights = [], []
        for lesson in batch:
            before = self.tokenizer.encode(self.turn.replace("{}", lesson.prompt) + lesson.given)
            reply = self.tokenizer.encode(lesson.reply + self.tokenizer.eos_token)
            weight = [self.word_weight if t in self.words else 1.0 for t in reply]
            rows.append(torch.tensor(before + reply))
            # A long reply decides more than one word, but not in proportion to its length.
            scale = min(sum(weight), LONG)
            weights.append(torch.tensor([0.0] * len(before) + weight) / scale)
        pad = self.tokenizer.pad_token_id
        return (
            nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad),
            nn.utils.rnn.pad_sequence(weights, batch_first=True),
        )


def positions(model, ids: torch.Tensor) -> torch.Tensor:
    """M-RoPE positions (3, 1, length): the picture stands at the same place in every lesson."""
    row = ids[:1]
    grid = torch.tensor([[1, 8, 8]])
    kinds = (row == model.config.image_token_id).int()
    return model.model.get_rope_index(row, kinds, image_grid_thw=grid)[0]


def lesson_loss(
    model, seen: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Weighted cross-entropy of the replies, summed over lessons.

    Each lesson has a bounded weight: one word of an answer must not drown among captions of twenty.
    """
    embedded = model.get_input_embeddings()(ids)
    image = (ids == model.config.image_token_id).unsqueeze(-1)
    embedded = embedded.masked_scatter(image, seen)
    hidden = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=(ids != model.config.text_config.pad_token_id).long(),
        position_ids=positions(model, ids),
        use_cache=False,
    ).last_hidden_state
    learnt = weights[:, 1:] > 0  # logits are needed only where a reply is learnt
    loss = nn.functional.cross_entropy(
        model.lm_head(hidden[:, :-1][learnt]), ids[:, 1:][learnt], reduction="none"
    )
    return (loss * weights[:, 1:][learnt]).sum()


def train_language(model, processor, scenes, seen, recipe: Recipe, folder: Path) -> None:
    """Teach the lessons; the tower is frozen, so its features are computed once."""
    model.model.visual.requires_grad_(False)
    # Faster than sdpa at this size.
    model.model.language_model.config._attn_implementation = "eager"
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimiser, schedule = optimiser_of(learnt, recipe.language_lr, recipe.language_steps)
    checkpoint = Checkpoint(folder / "language.pt", model, optimiser, schedule)
    batcher = Batcher(processor, recipe.word_weight)
    start, began = checkpoint.load(), time.time()
    for step in range(start, recipe.language_steps):
        rng = np.random.default_rng((recipe.seed, 2, step))
        seeing = step < recipe.seeing_steps
        shares, size = (SEEING, recipe.seeing_batch) if seeing else (JUDGING, recipe.judging_batch)
        batch: list[lessons.Lesson] = []
        while len(batch) < size:
            batch += lessons.sample(rng, scenes, shares)
        optimiser.zero_grad()
        total = 0.0
        for shown, ids, weights in batcher.parts(batch, recipe.parts):
            loss = lesson_loss(model, seen[shown], ids, weights) / len(batch)
            loss.backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % 20 == 0:
            log(folder, stage="language", step=step + 1, loss=total, seconds=time.time() - began)
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.language_steps:
            checkpoint.save(step + 1)
