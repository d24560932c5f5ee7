"""The second training step of the build: a language model that learns lessons on the tower."""

import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sgvl.nano import lessons
from sgvl.nano.architecture import TOKENS
from sgvl.nano.recipe import Checkpoint, Recipe, log, optimiser_of
from sgvl.policies.concepts import CATEGORIES, concepts
from sgvl.text.prompts import message

# The share of each lesson in each phase (ours). The first three phases are without pictures: to
# recite clauses, which teaches what belongs together; to recite the options of a choice as well;
# and to judge descriptions under a policy. Then the model learns to describe pictures, and to judge
# them. A few options are recited throughout, or their letters are forgotten. The last phase starts
# from a lower rate and repeats what is learnt slowest: names and choices.
PHASES = {
    "reciting": {"recite_plain": 1.0},
    "lettering": {"recite": 0.5, "recite_options": 0.5},
    "reading": {"recite": 0.15, "recite_options": 0.25, "judge_text": 0.6},
    "seeing": {
        "caption": 0.46,
        "presence": 0.14,
        "choice": 0.14,
        "count": 0.06,
        "place": 0.04,
        "judge_description": 0.1,
        "recite_options": 0.06,
    },
    "judging": {
        "caption": 0.15,
        "caption_under_policy": 0.1,
        "judge": 0.4,
        "judge_description": 0.12,
        "presence": 0.07,
        "choice": 0.08,
        "count": 0.02,
        "place": 0.02,
        "recite_options": 0.04,
    },
    "polishing": {
        "caption": 0.3,
        "caption_under_policy": 0.1,
        "judge": 0.35,
        "judge_description": 0.05,
        "presence": 0.06,
        "choice": 0.1,
        "count": 0.02,
        "place": 0.02,
    },
}

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
    "here",
]


class Batcher:
    """Turns lessons into padded rows of token ids with the weight of each token in the loss.

    Words that carry content weigh more than others. All lessons weigh the same, whatever the length
    of their replies, so that answers of one word count as much as captions.
    """

    def __init__(self, processor, word_weight: float):
        self.tokenizer, self.word_weight = processor.tokenizer, word_weight
        image = processor.image_token
        self.template, self.template_with_picture = (
            processor.apply_chat_template(
                [message("{}", image=picture)], add_generation_prompt=True, tokenize=False
            ).replace(image, image * TOKENS)
            for picture in (None, True)
        )
        words = [f" {word}" for word in (*concepts(), *CATEGORIES, *CONTENT, *"ABCD")]
        self.words = {self.tokenizer.encode(w)[0] for w in (*words, *lessons.ANSWERS, ",", ".")}

    def parts(self, batch: list[lessons.Lesson], parts: int):
        """Split a batch by length; yield picture numbers, token ids and weights of each part."""
        batch = sorted(batch, key=lambda lesson: len(lesson.prompt + lesson.opening + lesson.reply))
        for rows in np.array_split(np.arange(len(batch)), min(parts, len(batch))):
            part = [batch[i] for i in rows]
            yield [lesson.picture for lesson in part if lesson.picture is not None], *self(part)

    def __call__(self, batch: list[lessons.Lesson]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids and loss weights, both (rows, length)."""
        rows, weights = [], []
        for lesson in batch:
            no_picture = lesson.picture is None
            template = self.template if no_picture else self.template_with_picture
            before = self.tokenizer.encode(template.replace("{}", lesson.prompt) + lesson.opening)
            reply = self.tokenizer.encode(lesson.reply + self.tokenizer.eos_token)
            weight = [self.word_weight if t in self.words else 1.0 for t in reply]
            rows.append(torch.tensor(before + reply))
            weights.append(torch.tensor([0.0] * len(before) + weight) / sum(weight))
        pad = self.tokenizer.pad_token_id
        return (
            nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad),
            nn.utils.rnn.pad_sequence(weights, batch_first=True),
        )


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


def train_language(model, processor, scenes, image_tokens, recipe: Recipe, folder: Path) -> None:
    """Train the language model on lessons about ``scenes``, whose image tokens are fixed."""
    model.model.visual.requires_grad_(False)
    # Faster than sdpa at this size.
    model.model.language_model.config._attn_implementation = "eager"
    learnt = [p for p in model.parameters() if p.requires_grad]
    steps = {phase: getattr(recipe, f"{phase}_steps") for phase in PHASES}
    phases = [phase for phase, n in steps.items() for _ in range(n)]
    polishing = steps["polishing"]
    optimiser, schedule = optimiser_of(
        learnt, recipe.language_lr, recipe.language_warmup, len(phases) - polishing, polishing
    )
    checkpoint = Checkpoint(folder / "language.pt", model, optimiser, schedule)
    batcher = Batcher(processor, recipe.word_weight)
    done, start = checkpoint.load(), time.time()
    for step, phase in list(enumerate(phases))[done:]:
        rng = np.random.default_rng((recipe.seed, 2, step))
        batch: list[lessons.Lesson] = []
        while len(batch) < recipe.language_batch:
            batch += lessons.sample(rng, scenes, PHASES[phase])
        optimiser.zero_grad()
        total = 0.0
        for pictures, ids, weights in batcher.parts(batch, recipe.parts):
            loss = lesson_loss(model, image_tokens[pictures], ids, weights) / len(batch)
            loss.backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % 20 == 0:
            log(folder, stage=phase, step=step + 1, loss=total, seconds=time.time() - start)
        if (step + 1) % recipe.save_every == 0 or step + 1 == len(phases):
            checkpoint.save(step + 1)
