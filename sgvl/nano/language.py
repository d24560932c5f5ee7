"""The second step of the build: a language model that learns its lessons on a finished tower."""

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

# The share of each kind of lesson, phase by phase (ours). First words alone: to say clauses again,
# then the options of a choice too, which teaches what belongs to what, and then to look up what a
# policy says of given things. Then to see, then to judge what is seen, while a few options are
# still said again, or their letters are lost; at last, once more from a lower rate, what came
# slowest: the names, and choices.
PHASES = {
    "reciting": {"recite_plain": 1.0},
    "lettering": {"recite": 0.5, "recite_options": 0.5},
    "reading": {"recite": 0.15, "recite_options": 0.25, "read": 0.6},
    "seeing": {
        "caption": 0.46,
        "presence": 0.14,
        "choice": 0.14,
        "count": 0.06,
        "place": 0.04,
        "judge_given": 0.1,
        "recite_options": 0.06,
    },
    "judging": {
        "caption": 0.15,
        "caption_under_policy": 0.1,
        "judge": 0.4,
        "judge_given": 0.12,
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
        "judge_given": 0.05,
        "presence": 0.06,
        "choice": 0.1,
        "count": 0.02,
        "place": 0.02,
    },
}

# After a category a reply goes on with its status or with a comma ("all else"), after a status with
# "except" or a full stop: ways on must weigh the same, or the loss pays for a guess.
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
    """Lessons as padded rows of token ids, with the weight of each token in the loss.

    The words that carry content weigh more than those between them. A lesson weighs the same
    whether its reply is long or short: one word of an answer must not drown among captions.
    """

    def __init__(self, processor, word_weight: float):
        self.tokenizer, self.word_weight = processor.tokenizer, word_weight
        image = processor.image_token
        self.turn, self.turn_with_picture = (
            processor.apply_chat_template(
                [message("{}", image=shown)], add_generation_prompt=True, tokenize=False
            ).replace(image, image * TOKENS)
            for shown in (None, True)
        )
        words = [f" {word}" for word in (*concepts(), *CATEGORIES, *CONTENT, *"ABCD")]
        self.words = {self.tokenizer.encode(w)[0] for w in (*words, *lessons.ANSWERS, ",", ".")}

    def parts(self, batch: list[lessons.Lesson], parts: int):
        """The batch in parts of like length: pictures, token ids and weights of each."""
        batch = sorted(batch, key=lambda lesson: len(lesson.prompt + lesson.given + lesson.reply))
        for rows in np.array_split(np.arange(len(batch)), min(parts, len(batch))):
            part = [batch[i] for i in rows]
            yield [lesson.picture for lesson in part if lesson.picture is not None], *self(part)

    def __call__(self, batch: list[lessons.Lesson]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and loss weights, both (rows, length)."""
        rows, weights = [], []
        for lesson in batch:
            turn = self.turn if lesson.picture is None else self.turn_with_picture
            before = self.tokenizer.encode(turn.replace("{}", lesson.prompt) + lesson.given)
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
    """M-RoPE positions (3, rows, length) of padded rows with one picture or none."""
    grids = torch.tensor([[1, 8, 8]]).expand(len(ids), 3)
    kinds = (ids == model.config.image_token_id).int()
    return model.model.get_rope_index(ids, kinds, image_grid_thw=grids)[0]


def lesson_loss(
    model, seen: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Weighted cross-entropy of the replies, summed over lessons."""
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
    steps = {phase: getattr(recipe, f"{phase}_steps") for phase in PHASES}
    phases = [phase for phase, n in steps.items() for _ in range(n)]
    polishing = steps["polishing"]
    optimiser, schedule = optimiser_of(
        learnt, recipe.language_lr, recipe.language_warmup, len(phases) - polishing, polishing
    )
    checkpoint = Checkpoint(folder / "language.pt", model, optimiser, schedule)
    batcher = Batcher(processor, recipe.word_weight)
    start, began = checkpoint.load(), time.time()
    for step, phase in list(enumerate(phases))[start:]:
        rng = np.random.default_rng((recipe.seed, 2, step))
        batch: list[lessons.Lesson] = []
        while len(batch) < recipe.language_batch:
            batch += lessons.sample(rng, scenes, PHASES[phase])
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
            log(folder, stage=phase, step=step + 1, loss=total, seconds=time.time() - began)
        if (step + 1) % recipe.save_every == 0 or step + 1 == len(phases):
            checkpoint.save(step + 1)
