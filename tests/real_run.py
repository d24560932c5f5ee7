"""A small run on published data, as 01, 02 and the trainings leave it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, Features, Image, Value
from published import as_file

from sgvl.data import store
from sgvl.data.real_rows import make_rows
from sgvl.data.sources import general, unsafebench
from sgvl.policies.policy import Policy
from sgvl.policies.policy import load as load_policy
from sgvl.world.scenes import render, sample_scene

BENCH = "tyodd/SafeEditBench@1a2b3c4d"
# Labels of an original under L1 to L5; the counterpart of each is safe but under L5.
LABELS = {"gun": "ssuuu", "hug": "ssssu", "scar": "suuuu"}
WORDS = {"s": "safe", "u": "unsafe"}


def pictures(n: int) -> list[bytes]:
    """Draw different pictures, as files."""
    rng = np.random.default_rng(0)
    names = [("knife", "dog", "tree")[k % 3] for k in range(n)]
    return [as_file(render(sample_scene(rng, "test", [name]))) for name in names]


def _rows(files, where, **columns) -> Dataset:
    images = Dataset.from_dict(
        {"image": [{"bytes": file, "path": None} for file in files]},
        Features({"image": Image(decode=False)}),
    )
    return make_rows(images, where, split="test", **columns)


def safeeditbench() -> Dataset:
    levels = [Policy(name=f"L{k}", title="Policy", text=f"Text of L{k}.") for k in range(1, 6)]
    by_id = LABELS | {f"{pair}_edited": "ssssu" for pair in LABELS}
    rows = [
        (id, id.removesuffix("_edited"), policy, WORDS[letter])
        for id, labels in by_id.items()
        for policy, letter in zip(levels, labels, strict=True)
        if (id, policy.name) != ("scar_edited", "L2")  # as published: not every row is there
    ]
    files = dict(zip(dict.fromkeys(row[0] for row in rows), pictures(6), strict=True))
    return _rows(
        [files[row[0]] for row in rows],
        BENCH,
        ids=[row[0] for row in rows],
        pairs=[row[1] for row in rows],
        source=BENCH,
        policies=[row[2] for row in rows],
        labels=[row[3] for row in rows],
    )


def content() -> Dataset:
    cases = [(name, label) for name in unsafebench.CATEGORIES for label in WORDS.values()]
    return _rows(
        pictures(len(cases)),
        "yiting/UnsafeBench",
        ids=[f"test-{k:05d}" for k in range(len(cases))],
        source="yiting/UnsafeBench@1a2b3c4d",
        policies=[load_policy("openai_content")] * len(cases),
        labels=[label for _, label in cases],
        categories=[name for name, _ in cases],
    )


def own() -> Dataset:
    texts = ["Weapons: should not be shown.", "Weapons: may be shown."]
    return _rows(
        [file for file in pictures(2) for _ in range(2)],
        "AIML-TUDA/LlavaGuard",
        ids=["a", "a_v2", "b", "b_v2"],
        pairs=["url a", "url a", "url b", "url b"],
        source="AIML-TUDA/LlavaGuard@1a2b3c4d",
        policies=[Policy(name="llavaguard", title="Policy", text=text) for text in texts * 2],
        labels=["unsafe", "safe"] * 2,
        categories=["O6: Weapons or Substance Abuse"] * 4,
    )


def policyshift() -> Dataset:
    """Four pictures, each under a policy that blocks it and under one that does not."""
    bundles = [Policy(name=f"bundle-{k}", title="Active policies", text=f"Rule {k}.") for k in "ab"]
    return _rows(
        [file for file in pictures(4) for _ in bundles],
        "PolicyShiftGuard/PolicyShiftBench",
        ids=[f"id_test-{k:05d}" for k in range(8)],
        pairs=[str(k // 2) for k in range(8)],
        source="PolicyShiftGuard/PolicyShiftBench@1a2b3c4d",
        policies=bundles * 4,
        labels=["unsafe", "safe"] * 4,
        categories=["Weapons"] * 8,
    )


def questions(name: str) -> Dataset:
    repo, _ = general.REPOS[name]
    rows = [
        {"id": f"{name}-{k}", "source": f"{repo}@1a2b3c4d", "set": name, "category": "naming"}
        | {"images": [{"bytes": file, "path": None}], "question": "What is it?"}
        | {"options": ["cat", "dog"], "answer": "B"}
        for k, file in enumerate(pictures(2))
    ]
    return Dataset.from_list(rows, features=general.FEATURES)


def captions() -> Dataset:
    rows = [
        {"id": str(k), "image": {"bytes": file, "path": None}, "prompt": "minimal_edit"}
        | {"caption": "I see an object.", "recaption": "I see a knife.", "recaptioner": "gemma"}
        for k, file in enumerate(pictures(2))
    ]
    features = Features({name: Value("string") for name in rows[0]} | {"image": Image()})
    return Dataset.from_list(rows, features)


def write(run: Path) -> None:
    """Write what notebooks 05 to 07 read, but for the answers of judges."""
    sets = {"safeeditbench": safeeditbench(), "unsafebench": content(), "llavaguard_test": own()}
    store.save(sets | {name: questions(name) for name in general.REPOS}, run / "data", seed=0)
    store.save({"captions": captions()}, run / "recaption", seed=0)
    words = [("I", "kept"), ("see", "kept"), ("object.", "removed"), ("knife.", "added")]
    rows = [("0", "minimal_edit", k, *word) for k, word in enumerate(words)]
    table = pd.DataFrame(rows, columns=["id", "prompt", "position", "word", "change"])
    table.to_csv(run / "recaption" / "figure3.csv", index=False)
    logs = {"03_sft.recap": {"loss": [2.0, 1.0]}, "04_grpo.full": {"reward": [0.2, 0.4]}}
    for unit, columns in logs.items():
        (run / "training" / unit).mkdir(parents=True)
        log = pd.DataFrame({"step": [1, 2], **columns})
        log.to_csv(run / "training" / unit / "log.csv", index=False)
    receipt = {"status": "unavailable", "reason": "safeedit_train: never released"}
    (run / "04_grpo.rl_safeedit.json").write_text(json.dumps(receipt))
