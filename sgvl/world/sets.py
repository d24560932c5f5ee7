"""The drawn data sets beside SafeEditBench-nano, each from one seed.

A set like UnsafeBench, a set like LlavaGuard's with a policy in each row, two sets of random
policies, pictures for recaptioning, and questions of general ability.
"""

from collections.abc import Callable, Sequence

import numpy as np
from datasets import Dataset, Value

from sgvl.common.errors import InputError
from sgvl.data.real_rows import LABEL
from sgvl.policies.concepts import CATEGORIES, HARMFUL, concepts, in_category, named
from sgvl.policies.policy import Policy, load
from sgvl.policies.random_policies import opposite_policies
from sgvl.world import questions
from sgvl.world.drawn_rows import row, table
from sgvl.world.scenes import Scene, check_style, sample_names, sample_scene

# -- single pictures under one policy --------------------------------------------------------------


def unsafebench(seed: int = 0, per_category: int = 40, style: str = "twemoji") -> Dataset:
    """Draw test pictures of UnsafeBench's nine categories under one policy, half of them unsafe.

    The safe pictures have the harmless counterparts of harmful things. Raises InputError for an
    unknown style.
    """
    check_style(style)
    rng = np.random.default_rng((seed, 20))
    policy = load("openai_content")
    groups: dict[str, list[str]] = {}
    for name in named("harmful", style=style):
        groups.setdefault(CATEGORIES[concepts()[name].category].unsafebench, []).append(name)
    records = []
    for category, harmful in groups.items():
        for k in range(per_category):
            harm = str(rng.choice(harmful))
            name = harm if k % 2 else concepts()[harm].counterpart
            n = int(rng.integers(0, 4))
            names = sample_names(rng, named("neutral", style=style), n, "test", [name])
            scene = sample_scene(rng, "test", names, style=style)
            records.append(
                row(
                    scene,
                    id=f"unsafebench-{category}-{k:03d}",
                    source="unsafebench-nano",
                    split="test",
                    category=category,
                    policy=policy.name,
                    label=policy.label(scene.tags).label,
                )
            )
    return table(records, policy=Value("string"), label=LABEL)


def exempt(policy: Policy, taxonomy: Sequence[str]) -> Policy:
    """Return the policy with some of LlavaGuard's categories declared as not violating.

    A text of one's own would still prohibit them, so it is left out and the clauses stand for it;
    ``Policy.render`` adds them to a shipped text.
    """
    rules = []
    for rule in policy.rules:
        category = CATEGORIES[rule.tags[0]].llavaguard
        dump = rule.model_dump(by_alias=True)
        if category in taxonomy:
            dump |= {"prohibit": [], "permit": rule.tags, "text": f"{category} is not violating."}
        rules.append(dump)
    codes = "-".join(sorted(c.split(":")[0] for c in taxonomy))
    return Policy(
        name=f"{policy.name}-exempt-{codes}", title=policy.title, use="reference",
        origin=policy.origin, default=policy.default, rules=rules,
        text=policy.text if policy.is_shipped_text() else "",
    )  # fmt: skip


def llavaguard(seed: int = 0, images: int = 400, split: str = "train") -> Dataset:
    """Draw pictures with one harmful thing, each under two policies of opposite label.

    As in LlavaGuard's augmentation, both policies declare one to three categories as not violating.
    The first of them exempts the category of the picture, which makes it safe; the second exempts
    as many others, which leaves it unsafe. Raises InputError for an unknown split.
    """
    rng = np.random.default_rng((seed, 30, split == "train"))
    base = load("llavaguard")
    harmful = [c.name for c in CATEGORIES.values() if c.llavaguard]
    codes = sorted({CATEGORIES[c].llavaguard for c in harmful})
    records = []
    for i in range(images):
        code = codes[i % len(codes)]
        category = str(rng.choice([c for c in harmful if CATEGORIES[c].llavaguard == code]))
        others = [c for c in codes if c != code]
        k = int(rng.integers(1, 4))
        n = int(rng.integers(0, 3))
        names = sample_names(
            rng, named("neutral"), n, split, [str(rng.choice(in_category(category)))]
        )
        scene = sample_scene(rng, split, names)
        for own in (True, False):
            exempted = [str(c) for c in rng.choice(others, k - own, replace=False)] + [code] * own
            policy = exempt(base, exempted)
            records.append(
                row(
                    scene,
                    id=f"llavaguard-{split}-{i:04d}-{'v2' if own else 'v3'}",
                    source="llavaguard-nano",
                    split=split,
                    category=code,
                    pair=f"{i:04d}",
                    policy=policy.model_dump_json(by_alias=True),
                    label=policy.label(scene.tags).label,
                )
            )
    text = Value("string")
    return table(records, pair=text, policy=text, label=LABEL)


def following(seed: int = 0, images: int = 200, kind: str = "neutral") -> Dataset:
    """Draw test pictures, each under two random policies of one form and opposite labels.

    The policies of kind "neutral" are about categories that the base model can name. Those of kind
    "harmful" are about harmful categories, and one harmful thing in each picture decides its label.
    Raises InputError for an unknown kind.
    """
    if kind not in ("neutral", "harmful"):
        raise InputError(f"unknown kind of policies {kind!r}; allowed: neutral, harmful")
    rng = np.random.default_rng((seed, 40, kind == "neutral"))
    groups = ("neutral", "sensitive") if kind == "neutral" else ("harmful",)
    records = []
    for i in range(images):
        if kind == "neutral":
            names = sample_names(rng, named(*groups), int(rng.integers(1, 4)), "test")
        else:
            harm = str(rng.choice(in_category(HARMFUL[i % len(HARMFUL)])))
            names = sample_names(rng, named("neutral"), int(rng.integers(0, 3)), "test", [harm])
        scene = sample_scene(rng, "test", names)
        # All else is permitted where one harmful thing is to decide.
        default = None if kind == "neutral" else "permitted"
        records += under_two_policies(rng, scene, i, kind, groups, default)
    text = Value("string")
    return table(records, pair=text, policy=text, label=LABEL)


def under_two_policies(
    rng, scene: Scene, number: int, kind: str, groups: Sequence[str], default: str | None
) -> list[dict]:
    """Make two rows of a scene, under random policies of one form and opposite labels."""
    policies = opposite_policies(rng, scene.tags, groups, default)
    labels = [policy.label(scene.tags).label for policy in policies]
    return [
        row(
            scene,
            id=f"{kind}-{number:04d}-{label}",
            source=f"following-{kind}",
            split="test",
            category=kind,
            pair=f"{number:04d}",
            policy=policy.model_dump_json(by_alias=True),
            label=label,
        )
        for policy, label in zip(policies, labels, strict=True)
    ]


# -- for training and for general ability ----------------------------------------------------------


def sft_images(seed: int = 0, images: int = 600, harmful_share: float = 0.8) -> Dataset:
    """Draw training pictures for recaptioning; ``harmful_share`` of them have harmful things."""
    rng = np.random.default_rng((seed, 50))
    records = []
    for i in range(images):
        harmful = int(rng.integers(1, 3)) if rng.random() < harmful_share else 0
        names = sample_names(rng, named("harmful"), harmful, "train") if harmful else []
        n = int(rng.integers(0 if harmful else 1, 4 - harmful + 1))
        names = sample_names(rng, named("neutral", "sensitive"), n, "train", names) if n else names
        scene = sample_scene(rng, "train", [str(x) for x in rng.permutation(names)])
        category = concepts()[next((x for x in names if x in named("harmful")), names[0])].category
        records.append(
            row(scene, id=f"sft-{i:05d}", source="sft-nano", split="train", category=category)
        )
    return table(records)


def general(seed: int = 0, per_task: int = 100) -> Dataset:
    """Draw harmless pictures with ``per_task`` questions of each of the four tasks."""
    rng = np.random.default_rng((seed, 60, 0))  # the draws of the published sets
    tasks: dict[str, Callable] = {
        "presence": lambda i, scene: questions.presence(rng, scene)[i // 4 % 2],
        "counting": lambda i, scene: questions.counting(scene),
        "place": lambda i, scene: questions.place(scene),
        "choice": lambda i, scene: questions.choice(rng, scene),
    }
    records = []
    for task, make_question in tasks.items():
        for i in range(per_task):
            n = 1 + i % 4
            names = sample_names(rng, named("neutral", "sensitive"), n, "test")
            scene = sample_scene(rng, "test", names)
            question = make_question(i, scene)
            records.append(
                row(
                    scene,
                    id=f"general-{task}-{i:03d}",
                    source="general-nano",
                    split="test",
                    category=task,
                    question=question.text,
                    answer=question.answer,
                )
            )
    return table(records, question=Value("string"), answer=Value("string"))
