"""Pictures in files: decoded a batch at a time, shared by rows, copies compared."""

import json
import weakref

import numpy as np
import pyarrow as pa
import pytest
from datasets import Features, Image, List, Value

from sgvl.common.files import sha256
from sgvl.common.kept import Kept
from sgvl.data import arrow, store
from sgvl.judges import ask_all, make_judge, under
from sgvl.policies.policy import load, load_all
from sgvl.training import grpo, sft, trainer

LEVELS = load_all()
MB = 2**20
SMALL = 4 * 40 * 30  # bytes of one of ``photos`` in memory


@pytest.fixture
def photographs():
    """Eight rows of 1 MB that no program compresses."""
    features = Features({"id": Value("string"), "image": Image(), "tags": List(Value("string"))})
    noise = np.random.default_rng(0)
    rows = ({"id": f"p{k}", "image": noise.bytes(MB), "tags": ["dog", "park"]} for k in range(8))
    return arrow.write_rows(
        (row | {"image": {"bytes": row["image"], "path": None}} for row in rows), features
    )


def test_judging_holds_the_pictures_of_one_batch(tmp_path, monkeypatch, photos):
    alive, most = weakref.WeakValueDictionary(), []

    def counted(*args, **kwargs):
        image = load(*args, **kwargs)
        alive[len(most)] = image
        most.append(len(alive))
        return image

    load = store.load_image
    monkeypatch.setattr(store, "load_image", counted)
    monkeypatch.setattr(store, "OPENED", Kept(2 * SMALL, store.OPENED.size))
    judge = make_judge("always_unsafe")
    answers = ask_all(judge, under(store.samples(photos), LEVELS[:2]), tmp_path, batch_size=3)
    assert len(answers) == 2 * 24 and len(most) == 24
    # The first of all is kept too, the next is there already, and two are for the next judge.
    assert max(most) <= 3 + 2 + 2


def test_a_picture_is_decoded_once_while_there_is_room_and_a_caller_may_change_its_own(
    monkeypatch, photos
):
    decoded, load = [], store.load_image
    monkeypatch.setattr(
        store, "load_image", lambda *args, name: decoded.append(name) or load(*args, name)
    )
    monkeypatch.setattr(store, "OPENED", Kept(10 * SMALL, store.OPENED.size))
    first = [sample.image for sample in store.samples(photos)]
    pixels = [image.tobytes() for image in first]
    for image in first:
        image.paste((255, 255, 255), (0, 0, 40, 30))
    assert [sample.image.tobytes() for sample in store.samples(photos)] == pixels
    assert decoded == [f"p{k}" for k in [*range(24), *range(10, 24)]]


@pytest.fixture
def photos(tmp_path):
    """24 small pictures, each of its own colour."""
    import PIL.Image

    from sgvl.world.drawn_rows import encoded

    features = Features({"id": Value("string"), "image": Image()})
    images = (encoded(PIL.Image.new("RGB", (40, 30), (k, 2 * k, 0))) for k in range(24))
    return arrow.write_rows(({"id": f"p{k}", "image": i} for k, i in enumerate(images)), features)


def test_large_pictures_come_fewer_at_a_time(tmp_path, monkeypatch, photos):
    monkeypatch.setattr("sgvl.judges.ask.PIXELS", 3 * 40 * 30 - 1)
    seen = []
    cases = under(store.samples(photos), LEVELS[:1])
    ask_all(make_judge("always_safe"), cases, tmp_path, batch_size=10, progress=seen.append)
    assert seen == [3] * 8


def test_training_rows_of_five_levels_copy_no_picture(photographs):
    before = pa.total_allocated_bytes()
    rows = grpo.shuffled(grpo.under(photographs, LEVELS), seed=0)
    verdicts = sft.classify(photographs, load("L2"))
    assert pa.total_allocated_bytes() - before < MB / 4
    assert len(rows) == 8 * 5 and len(verdicts) == 8
    files = {row["id"]: row["image"]["bytes"] for row in store.without_decoding(photographs)}
    for row in store.without_decoding(rows):
        id_, _, level = row["id"].rpartition("-")
        assert row["image"]["bytes"] == files[id_] and row["policy"] == level
    assert len({trainer.digest(rows), trainer.digest(rows.select(range(39)))}) == 2


def test_a_copy_of_a_set_that_was_changed_or_cut_is_not_used(tmp_path, photos):
    store.save({"photos": photos}, tmp_path, seed=0)
    files = [row["image"]["bytes"] for row in store.without_decoding(photos)]

    def read() -> list[bytes]:
        rows = store.without_decoding(store.read("photos", tmp_path))
        return [row["image"]["bytes"] for row in rows]

    assert read() == files
    copy, note = tmp_path / ".cache" / "photos.arrow", tmp_path / ".cache" / "photos.json"
    whole = copy.read_bytes()
    at = whole.index(files[3])
    for content in (whole[:at] + b"?" * 8 + whole[at + 8 :], whole[:-100], b"", None):
        copy.write_bytes(content) if content is not None else copy.unlink()
        assert read() == files and copy.read_bytes() == whole
    for text in ("", "[]", json.dumps({"parquet": "0" * 64})):
        note.write_text(text)
        assert read() == files
    inode = copy.stat().st_ino
    assert read() == files and copy.stat().st_ino == inode  # a sound copy stays


def test_a_picture_of_several_rows_is_written_once(tmp_path, photographs):
    rows = grpo.under(photographs, LEVELS)
    assert arrow.fold(photographs) is photographs
    path = tmp_path / "rows.parquet"
    arrow.fold(rows).to_parquet(path)
    assert 8 * MB < path.stat().st_size < 8.1 * MB and arrow.is_folded(path)
    again = arrow.open_parquet(path, sha256(path))
    assert again.column_names == rows.column_names and again.features == rows.features
    assert trainer.digest(again) == trainer.digest(rows)
    photographs.to_parquet(path)
    assert not arrow.is_folded(path)


def test_an_unreadable_file_is_no_image(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "full").write_bytes(b"content")
    files = [tmp_path / "empty", None, tmp_path / "full", tmp_path / "missing"]
    images = arrow.write_files(files)["image"]
    assert list(images) == [None, None, {"bytes": b"content", "path": None}, None]
