"""The card says what is in the files, and what may be done with them."""

import pytest
import yaml
from huggingface_hub import DatasetCard

from sgvl.data import dataset_card, store
from sgvl.world import pairs, sets


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("data")
    made = {
        "safeeditbench": pairs.safeeditbench(per_category=10),
        "unsafebench": sets.unsafebench(per_category=2),
        "llavaguard": sets.llavaguard(images=2),
        "general": sets.general(per_task=1),
    }
    store.save(made, where, seed=7)
    dataset_card.write(where, list(made))
    return where


def test_the_header_is_one_that_the_hub_reads(folder):
    data = DatasetCard.load(folder / "README.md").data
    assert data.license == "cc-by-4.0" and data.language == "en"
    assert data.size_categories == "n<1K" and "synthetic" in data.tags
    assert dataset_card.NOT_FOR_ALL not in data.tags
    assert [(c["config_name"], c["data_files"]) for c in data.configs][1:3] == [
        ("unsafebench", [{"split": "test", "path": "unsafebench.parquet"}]),
        ("llavaguard", [{"split": "train", "path": "llavaguard.parquet"}]),
    ]


def test_its_numbers_are_those_of_the_files(folder):
    text = (folder / "README.md").read_text()
    assert "| safeeditbench | 280 |" in text and "| unsafebench | 18 | 9 |" in text
    assert "| L1 | L2 | L3 | L4 | L5 |" in text
    shares = text.partition("| L1 |")[2].splitlines()[2].split("|")[1:-1]
    assert [float(share) for share in shares] == sorted(map(float, shares)) and shares[0] == " 0.0 "
    assert "seed 7" in text and "Twemoji" in text and "OpenMoji" not in text


def test_the_licence_is_that_of_the_drawings(tmp_path):
    store.save({"unsafebench": sets.unsafebench(per_category=1, style="openmoji")}, tmp_path, 0)
    text = str(dataset_card.make_card(tmp_path, ["unsafebench"]))
    assert yaml.safe_load(text.split("---")[1])["license"] == "cc-by-sa-4.0" and "OpenMoji" in text
