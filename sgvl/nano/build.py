"""Build the nano base model: ``python -m sgvl.nano.build`` (about an hour and a half on two cores).

Four steps, each saved when it ends, so that a second call goes on where the first one stopped:

1. ``pool``: scenes are drawn; pictures of the training split only.
2. ``vision``: the vision tower learns to tell the drawings apart, as numbered classes without
   names, from a linear read-out of each image token. It then stays as it is.
3. ``language``: the language model learns the lessons of ``lessons.py`` on top of it.
4. ``card``: the finished model is loaded as a user would load it, measured on unseen scenes, and
   saved with its card.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import get_cosine_schedule_with_warmup

from sgvl.concepts import PLACES, concepts, named
from sgvl.nano import lessons
from sgvl.nano.architecture import TOKENS, make_model, make_processor, make_tokenizer
from sgvl.paths import NANO_MODEL, runs
from sgvl.prompts import message
from sgvl.scenes import Scene, render, sample_names, sample_scene

# What each kind of lesson weighs in the mix (ours): first seeing, then seeing and judging.
SEEING = {"caption": 0.6, "presence": 0.15, "count": 0.08, "place": 0.05, "choice": 0.12}
JUDGING = {
    "caption": 0.18,
    "caption_under_policy": 0.12,
    "judge": 0.26,
    "judge_given": 0.16,
    "presence": 0.08,
    "count": 0.04,
    "place": 0.02,
    "choice": 0.14,
}


@dataclass
class Recipe:
    """All that decides the built model. Sources: ours, found by trial."""

    seed: int = 0
    pool: int = 16_000  # pictures
    vision_steps: int = 2_000
    vision_batch: int = 32  # pictures
    vision_lr: float = 2e-3
    seeing_steps: int = 800  # of the language steps: without policies, so twice as quick
    language_steps: int = 1_700
    language_batch: int = 48  # lessons
    language_lr: float = 1e-3
    word_weight: float = 4.0  # of a concept's name or a verdict, among the other words of a reply
    parts: int = 4  # a batch is sorted by length and run in so many parts: less padding
    save_every: int = 200  # steps
    card_cases: int = 300  # unseen cases behind each figure of the card


def draw_pool(recipe: Recipe) -> list[Scene]:
    """Training scenes of one to four things; a bit more than half without anything harmful."""
    rng = np.random.default_rng(recipe.seed)
    tame, every = named(*lessons.SEEN), list(concepts())
    scenes = []
    for _ in range(recipe.pool):
        pool = tame if rng.random() < 0.55 else every
        names = sample_names(rng, pool, int(rng.integers(1, 5)), "train")
        scenes.append(sample_scene(rng, "train", names))
    return scenes


def patches(pictures: list[Image.Image], processor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures as the vision tower takes them: (64 n, 1176) patches and (n, 3) grid sizes."""
    batch = processor.image_processor(images=pictures, return_tensors="pt")
    return batch["pixel_values"], batch["image_grid_thw"]


def small(scene: Scene) -> np.ndarray:
    """A scene at the size that the model sees, (112, 112, 3) bytes: kept in memory by thousands."""
    return np.asarray(render(scene).resize((112, 112), Image.Resampling.BICUBIC))


def token_classes(scene: Scene) -> np.ndarray:
    """The class of the drawing that each of the 16 image tokens shows; the last class is none."""
    names = list(concepts())
    grid = np.full((4, 4), len(names))
    for thing in scene.things:
        row, column = divmod(thing.slot, 2)
        grid[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = names.index(thing.concept)
    return grid.reshape(-1)


def one_cycle(parameters, lr: float, steps: int):
    """AdamW with a warm-up of 5 % and a cosine to zero."""
    optimiser = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.95), weight_decay=0.01)
    return optimiser, get_cosine_schedule_with_warmup(optimiser, steps // 20, steps)


class Checkpoint:
    """State of one training step, saved whole and by rename, so that a kill loses little."""

    def __init__(self, path: Path, model: nn.Module, optimiser, schedule):
        self.path, self.parts = path, (model, optimiser, schedule)

    def load(self) -> int:
        """Restore the newest state and return the number of steps done."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True)
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        return state["step"]

    def save(self, step: int) -> None:
        fresh = self.path.with_suffix(".new")
        torch.save({"step": step, "parts": [part.state_dict() for part in self.parts]}, fresh)
        fresh.replace(self.path)


def log(folder: Path, **row) -> None:
    print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()),
          flush=True)  # fmt: skip
    with open(folder / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def train_vision(model, processor, scenes, pictures, recipe: Recipe, folder: Path) -> None:
    """Teach the tower to tell drawings and places apart, by a read-out that is then thrown away."""
    tower = model.model.visual
    things, places = nn.Linear(192, len(concepts()) + 1), nn.Linear(192, len(PLACES))
    network = nn.ModuleList([tower, things, places])
    classes = torch.from_numpy(np.stack([token_classes(s) for s in scenes]))
    where = torch.tensor([PLACES.index(s.place) for s in scenes])
    optimiser, schedule = one_cycle(network.parameters(), recipe.vision_lr, recipe.vision_steps)
    checkpoint = Checkpoint(folder / "vision.pt", network, optimiser, schedule)
    start, began = checkpoint.load(), time.time()
    for step in range(start, recipe.vision_steps):
        rng = np.random.default_rng((recipe.seed, 1, step))
        rows = rng.integers(len(scenes), size=recipe.vision_batch)
        pixels, grid = patches([Image.fromarray(pictures[i]) for i in rows], processor)
        tokens = tower(pixels, grid_thw=grid).pooler_output
        loss = nn.functional.cross_entropy(things(tokens), classes[rows].reshape(-1))
        loss = loss + nn.functional.cross_entropy(
            places(tokens), where[rows].repeat_interleave(TOKENS)
        )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            right = (things(tokens).argmax(-1) == classes[rows].reshape(-1)).float().mean()
            log(folder, stage="vision", step=step + 1, loss=loss.item(), right=right.item(),
                seconds=time.time() - began)  # fmt: skip
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.vision_steps:
            checkpoint.save(step + 1)


def features(model, processor, pictures) -> torch.Tensor:
    """What the finished tower sees in each picture: (n, 16, 192)."""
    seen = []
    with torch.no_grad():
        for k in range(0, len(pictures), 100):
            pixels, grid = patches([Image.fromarray(p) for p in pictures[k : k + 100]], processor)
            seen.append(
                model.model.visual(pixels, grid_thw=grid).pooler_output.view(-1, TOKENS, 192)
            )
    return torch.cat(seen)


class Batcher:
    """Lessons as padded rows of token ids, with the weight of each token in the loss.

    The words that matter weigh more: names and verdicts, among articles and commas.
    """

    def __init__(self, processor, word_weight: float):
        self.tokenizer, self.word_weight = processor.tokenizer, word_weight
        turn = processor.apply_chat_template(
            [message("{}", image=True)], add_generation_prompt=True, tokenize=False
        )
        image = processor.image_token
        self.turn = turn.replace(image, image * TOKENS)
        words = ("safe", "unsafe", "object", *concepts())
        self.words = {self.tokenizer.encode(" " + word)[0] for word in words}

    def parts(self, batch: list[lessons.Lesson], parts: int):
        """The batch in parts of like length: pictures, token ids and weights of each."""
        batch = sorted(batch, key=lambda lesson: len(lesson.prompt + lesson.given + lesson.reply))
        for rows in np.array_split(np.arange(len(batch)), parts):
            part = [batch[i] for i in rows]
            yield [lesson.picture for lesson in part], *self(part)

    def __call__(self, batch: list[lessons.Lesson]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and loss weights, both (rows, length); weights of a row sum to one."""
        rows, weights = [], []
        for lesson in batch:
            before = self.tokenizer.encode(self.turn.replace("{}", lesson.prompt) + lesson.given)
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
    """M-RoPE positions (3, 1, length): the picture stands at the same place in every lesson."""
    row = ids[:1]
    grid = torch.tensor([[1, 8, 8]])
    kinds = (row == model.config.image_token_id).int()
    return model.model.get_rope_index(row, kinds, image_grid_thw=grid)[0]


def lesson_loss(
    model, seen: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of the replies, averaged per lesson and then summed over lessons.

    Averaged per lesson, because a verdict of one word must not drown among captions of twenty.
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
    model.model.language_model.config._attn_implementation = (
        "eager"  # faster than sdpa at this size
    )
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimiser, schedule = one_cycle(learnt, recipe.language_lr, recipe.language_steps)
    checkpoint = Checkpoint(folder / "language.pt", model, optimiser, schedule)
    batcher = Batcher(processor, recipe.word_weight)
    start, began = checkpoint.load(), time.time()
    for step in range(start, recipe.language_steps):
        rng = np.random.default_rng((recipe.seed, 2, step))
        shares = SEEING if step < recipe.seeing_steps else JUDGING
        batch: list[lessons.Lesson] = []
        while len(batch) < recipe.language_batch:
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


def build(recipe: Recipe, folder: Path, output: Path) -> None:
    """Run the steps that are not done yet in ``folder``, then save model and card to ``output``."""
    from sgvl.nano.card import write_card

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1))
    began = time.time()
    scenes = draw_pool(recipe)
    if not (folder / "pool.npy").exists():
        np.save(folder / "pool.npy", np.stack([small(s) for s in scenes]))
        log(folder, stage="pool", pictures=len(scenes), seconds=time.time() - began)
    pictures = np.load(folder / "pool.npy")
    processor = make_processor(make_tokenizer(lessons.corpus(np.random.default_rng(recipe.seed))))
    model = make_model(processor.tokenizer, recipe.seed)
    train_vision(model, processor, scenes, pictures, recipe, folder)
    if not (folder / "features.safetensors").exists():
        save_file({"seen": features(model, processor, pictures)}, folder / "features.safetensors")
    seen = load_file(folder / "features.safetensors")["seen"]
    train_language(model, processor, scenes, seen, recipe, folder)
    processor.save_pretrained(output)
    model.to(torch.float16).save_pretrained(output)  # half the megabytes; loads as float32
    log(folder, stage="saved", seconds=time.time() - began)
    write_card(recipe, folder, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--folder", type=Path, default=runs("nano") / "build", help="unfinished work"
    )
    parser.add_argument("--output", type=Path, default=NANO_MODEL, help="the finished model")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = vars(parser.parse_args())
    folder, output = options.pop("folder"), options.pop("output")
    build(Recipe(**options), folder, output)


if __name__ == "__main__":
    main()
