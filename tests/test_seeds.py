"""Training again with other seeds: recipes really trained for two steps, and hand-worked means."""

import json
from functools import partial

import pandas as pd
import pytest

from sgvl.common.errors import InputError
from sgvl.data import store
from sgvl.experiments import seeds
from sgvl.experiments.claims import Evidence
from sgvl.models.loading import digest
from sgvl.world import sets
from sgvl.world.scenes import describe

TWO_STEPS = {"max_steps": 2, "per_device_train_batch_size": 8}


@pytest.fixture
def train(tmp_path, monkeypatch):
    """``seeds.train`` by the nano recipes, on four pictures, in an empty run folder."""
    monkeypatch.setattr(seeds, "runs", lambda profile: tmp_path / profile)
    monkeypatch.setattr(seeds, "ROOT", tmp_path)
    monkeypatch.setattr("sgvl.models.loading.ROOT", tmp_path)
    captions = sets.sft_images(seed=0, images=4)
    texts = [describe(tags) for tags in captions["tags"]]
    for name, column in (
        ("caption", texts),
        ("recaption", texts),
        ("prompt", ["minimal_edit"] * 4),
    ):
        captions = captions.add_column(name, column)
    store.save({"captions": captions}, tmp_path / "tiny" / "recaption")
    store.save({"llavaguard": sets.llavaguard(0, images=2)}, tmp_path / "tiny" / "data", 0)
    return partial(seeds.train, recipes="nano", profile="again", data_profile="tiny",
                   settings=TWO_STEPS)  # fmt: skip


def test_a_stage_starts_from_the_weights_of_its_own_seed(train, tmp_path):
    trained = {seed: train("04_grpo.full", seed) for seed in (1, 2)}
    assert trained[1] == tmp_path / "again/training/04_grpo.full.seed1/model"
    for seed, model in trained.items():
        facts = json.loads((model.parent / "identity.json").read_text())
        first = tmp_path / f"again/training/03_sft.recap.seed{seed}"
        assert facts["model"] == digest(str(first / "model"))
        assert facts["settings"]["seed"] == seed
        assert json.loads((first / "identity.json").read_text())["settings"]["seed"] == seed
    assert digest(str(trained[1])) != digest(str(trained[2]))
    written = trained[1].stat().st_mtime_ns
    assert train("04_grpo.full", 1) == trained[1] and trained[1].stat().st_mtime_ns == written

    changes = {"settings": {"learning_rate": 1e-3}}
    varied = train("04_grpo.full", 1, variation="fast", changes=changes)
    assert varied == tmp_path / "again/training/04_grpo.full.fast.seed1/model"
    plain, facts = (
        json.loads((m.parent / "identity.json").read_text()) for m in (trained[1], varied)
    )
    assert facts == plain | {"settings": plain["settings"] | changes["settings"]}
    assert digest(str(varied)) != digest(str(trained[1]))


def test_only_a_training_can_be_trained_again(train):
    with pytest.raises(InputError, match="no unit '05_benchmark'"):
        train("05_benchmark", 1)


def test_a_judge_is_called_as_in_05_or_by_its_id():
    names = seeds.judge_names("nano", ["base", "sft", "mine"])
    assert names == {"base": "base", "sft": "Ours (SFT)", "mine": "mine"}


def levels(judge, seed, right):
    """Four pairs under L2 to L5; ``right`` of the eight answers are right under every level."""
    rows = [
        (judge, f"{k}", f"{k // 2}", f"L{n}", ("unsafe", "safe")[k % 2], seed, k < right)
        for n in range(2, 6)
        for k in range(8)
    ]
    frame = pd.DataFrame(rows, columns=["judge", "id", "pair", "policy", "label", "seed", "right"])
    other = frame["label"].map({"safe": "unsafe", "unsafe": "safe"})
    return frame.assign(verdict=frame["label"].where(frame["right"], other))


def test_means_differences_and_runs_by_hand():
    """The base is right 4 times of 8; trained, 6 and 8 times: 25 and 50 points, 37.5 on average."""
    frames = {
        "levels": pd.concat([levels("base", 1, 4), levels("tuned", 1, 6), levels("tuned", 2, 8)])
    }
    evidence = Evidence(frames)
    mean = seeds.measure(evidence, ["base", "tuned"]).set_index(["judge", "measure"])["value"]
    assert mean["base", "L2 to L5 followed"] == 50 and mean["tuned", "L2 to L5 followed"] == 87.5
    gap = seeds.compare(evidence, [("tuned", "base")]).set_index("measure").loc["L2 to L5 followed"]
    assert gap["value"] == 37.5 and gap["note"] == "2 training seeds"
    assert gap["low"] < 0  # two seeds that lie 25 points apart cannot tell: t is 12.7
    single = seeds.by_seed(frames, ["base", "tuned"], 200).dropna(subset="value")
    values = {(row.seed, row.judge): row.value for row in single.itertuples()}
    assert values == {(1, "base"): 50, (1, "tuned"): 75, (2, "tuned"): 100}
