"""Nothing answered is lost, nothing is asked twice, and equal runs leave equal bytes."""

import json
from typing import NamedTuple

import pandas as pd
import pytest
from PIL import Image

from sgvl.common.errors import InputError
from sgvl.data.images import image_digest
from sgvl.judges import Judge, Judgement, Sample, ask_all, under
from sgvl.judges.records import Records
from sgvl.text.verdict import SAFE, UNPARSEABLE, UNSAFE


class Policy(NamedTuple):
    name: str
    digest: str


POLICIES = [Policy(f"L{i}", f"{i}" * 64) for i in (1, 2, 3)]
SAMPLES = [Sample(f"s{i}", Image.new("RGB", (2, 2), (i, 0, 0))) for i in range(5)]


class Stub(Judge):
    """Answers by rule, and notes every question."""

    id = "stub"

    def __init__(self, weights="w1"):
        self.weights, self.asked, self.calls = weights, [], 0

    def identity(self):
        return {"model": self.weights}

    def judge(self, cases):
        self.calls += 1
        pairs = [(sample.image.getpixel((0, 0))[0], policy.name) for sample, policy in cases]
        self.asked += pairs
        return [self.answer(red, int(name[1])) for red, name in pairs]

    def answer(self, red, level):
        if red == level == 3:
            return Judgement(UNPARSEABLE, None, None, "No.\r\n\u2028 line \ud800 half")
        return Judgement(UNSAFE if red > level else SAFE, red / 7, f"{red}>{level}?", "Answer: …")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "records" / "stub.jsonl"


@pytest.fixture
def full(path):
    """A finished run: (its rows, the bytes that it left)."""
    return ask_all(Stub(), under(SAMPLES, POLICIES), path.parent, batch_size=2), path.read_bytes()


# ---- one run -----------------------------------------------------------------------------------


def test_rows_come_back_whole_and_in_order(full):
    rows, content = full
    assert [(r["id"], r["policy"]) for r in rows] == [
        (s.id, p.name) for s in SAMPLES for p in POLICIES
    ]
    assert list(rows[0]) == ["id", "policy", "verdict", "p_unsafe", "rationale", "reply"]
    assert (
        rows[3] | {"id": 0, "policy": 0} == {"id": 0, "policy": 0} | Stub().answer(1, 1)._asdict()
    )
    assert content.count(b"\n") == len(rows) == 15 and content.isascii()


def test_batches_and_progress(path):
    judge, done = Stub(), []
    ask_all(judge, under(iter(SAMPLES), POLICIES), path.parent, batch_size=2, progress=done.append)
    assert judge.calls == 3 and done == [2, 2, 1]
    with pytest.raises(InputError, match="batch_size"):
        ask_all(judge, under(SAMPLES, POLICIES), path.parent, batch_size=0)


def test_equal_runs_leave_equal_bytes_whatever_the_batch(full, tmp_path):
    for size in (1, 3, 100):
        other = tmp_path / f"{size}"
        assert ask_all(Stub(), under(SAMPLES, POLICIES), other, batch_size=size) == full[0]
        assert (other / "stub.jsonl").read_bytes() == full[1]


def test_one_write_per_batch(path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda fd: synced.append(path.stat().st_size))
    ask_all(Stub(), under(SAMPLES, POLICIES), path.parent, batch_size=2)
    assert len(synced) == 3 and synced == sorted(set(synced)), "flushed before each fsync"


# ---- resume ------------------------------------------------------------------------------------


def test_a_finished_run_asks_nothing(full, path):
    judge = Stub()
    assert ask_all(judge, under(SAMPLES, POLICIES), path.parent) == full[0]
    assert judge.asked == [] and path.read_bytes() == full[1]


def test_resume_asks_only_for_what_is_missing(full, path):
    path.write_bytes(b"".join(full[1].splitlines(keepends=True)[:7]))
    judge = Stub()
    assert ask_all(judge, under(SAMPLES, POLICIES), path.parent, batch_size=2) == full[0]
    assert judge.asked == [(r // 3, f"L{r % 3 + 1}") for r in range(7, 15)]
    assert path.read_bytes() == full[1]


def test_a_new_policy_or_sample_asks_only_for_itself(path):
    ask_all(Stub(), under(SAMPLES[:4], POLICIES[:2]), path.parent)
    judge = Stub()
    ask_all(judge, under(SAMPLES, POLICIES), path.parent)
    assert sorted(judge.asked) == [(i, "L3") for i in range(4)] + [(4, f"L{k}") for k in (1, 2, 3)]
    assert judge.calls == 1


def test_a_crash_inside_a_batch_loses_that_batch_only(path):
    class Dies(Stub):
        def answer(self, red, level):
            if red == 3:
                raise KeyboardInterrupt
            return super().answer(red, level)

    with pytest.raises(KeyboardInterrupt):
        ask_all(Dies(), under(SAMPLES, POLICIES), path.parent, batch_size=2)
    judge = Stub()
    ask_all(judge, under(SAMPLES, POLICIES), path.parent, batch_size=2)
    assert {red for red, _ in judge.asked} == {2, 3, 4}


def test_torn_at_every_byte_of_the_last_line(full, path):
    rows, content = full
    start = content[:-1].rfind(b"\n") + 1
    torn = path.with_name("stub.jsonl.torn")
    for cut in range(start, len(content)):
        path.write_bytes(content[:cut])
        judge = Stub()
        assert ask_all(judge, under(SAMPLES, POLICIES), path.parent) == rows
        assert judge.asked == [(4, "L3")] and path.read_bytes() == content
        if cut > start:
            assert torn.read_bytes() == content[start:cut] + b"\n"
            torn.unlink()
        assert not torn.exists()


def test_the_same_picture_twice_is_one_question(path):
    twin = Sample("twin", SAMPLES[0].image.copy())
    for batch_size in (1, 32):
        judge = Stub(f"w{batch_size}")
        rows = ask_all(
            judge,
            under([SAMPLES[0], twin, SAMPLES[1]], POLICIES),
            path.parent,
            batch_size=batch_size,
        )
        assert len(judge.asked) == 6 and [r["id"] for r in rows[::3]] == ["s0", "twin", "s1"]
        assert [r["p_unsafe"] for r in rows[:3]] == [r["p_unsafe"] for r in rows[3:6]]


def test_a_picture_replaced_under_its_name_is_asked_anew(path):
    ask_all(Stub(), under([SAMPLES[0]], POLICIES), path.parent)
    judge = Stub()
    ask_all(judge, under([SAMPLES[1]._replace(id="s0")], POLICIES), path.parent)
    assert len(judge.asked) == 3


def test_tags_are_part_of_the_question_for_a_judge_that_reads_them(path):
    class ReadsTags(Stub):
        reads_tags = True

    for kind, asked in ((Stub, 0), (ReadsTags, 3)):
        ask_all(kind(kind.__name__), under([SAMPLES[0]], POLICIES), path.parent)
        judge = kind(kind.__name__)
        ask_all(
            judge, under([SAMPLES[0]._replace(tags=frozenset({"knife"}))], POLICIES), path.parent
        )
        assert len(judge.asked) == asked


def test_another_identity_is_kept_and_never_returned(full, path):
    class Grumpy(Stub):
        def answer(self, red, level):
            return Judgement(UNSAFE, 1.0)

    judge = Grumpy("w2")
    rows = ask_all(judge, under(SAMPLES, POLICIES), path.parent)
    assert len(judge.asked) == 15 and {r["verdict"] for r in rows} == {UNSAFE}
    assert path.read_bytes().startswith(full[1])
    assert ask_all(Stub(), under(SAMPLES, POLICIES), path.parent) == full[0]


def test_half_a_character_of_a_reply_blocks_no_table(path, tmp_path):
    """Of a file that holds one already, too; two halves are one character."""

    class Cut(Stub):
        def answer(self, red, level):
            return Judgement(SAFE, None, "\ud83d", "a \ud83d cut \ud83d\ude00")

    rows = ask_all(Cut(), under(SAMPLES[:1], POLICIES), path.parent)
    assert {row["reply"] for row in rows} == {"a \ufffd cut \U0001f600"}
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv")
    assert "\\ud83d " not in path.read_text()
    path.write_text(path.read_text().replace("\\ufffd", "\\ud83d"))
    assert ask_all(Cut(), under(SAMPLES[:1], POLICIES), path.parent) == rows


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage", [b"", b"\0\0\0", b"{}", b'"x"', b"[1]", b'{"key": "a"', b"\xff"]
)
def test_garbage_in_the_middle_names_the_line(full, path, garbage):
    lines = full[1].split(b"\n")
    path.write_bytes(b"\n".join([*lines[:4], garbage, *lines[4:]]))
    judge = Stub()
    with pytest.raises(InputError, match="line 5 is not a record"):
        ask_all(judge, under(SAMPLES, POLICIES), path.parent)
    assert judge.asked == []


def test_identical_lines_count_once_and_conflicting_ones_are_refused(full, path):
    lines = full[1].splitlines(keepends=True)
    path.write_bytes(full[1] + lines[2])
    assert ask_all(Stub(), under(SAMPLES, POLICIES), path.parent) == full[0]
    other = json.loads(lines[2]) | {"verdict": UNSAFE}
    path.write_bytes(full[1] + json.dumps(other).encode() + b"\n")
    with pytest.raises(
        InputError, match=r"line 3 and .*stub\.jsonl, line 16 contradict each other"
    ):
        ask_all(Stub(), under(SAMPLES, POLICIES), path.parent)


def test_equal_identities_share_answers_whatever_the_order_of_their_keys(path):
    one, other = Records(path, {"a": 1, "b": 2}), Records(path, {"b": 2, "a": 1})
    assert one.key("i", "p") == other.key("i", "p") != Records(path, {"a": 2, "b": 1}).key("i", "p")
    assert len({one.key("i", "p"), one.key("p", "i"), one.key("ip", ""), one.key("", "ip")}) == 4


def test_append_refuses_a_conflict_and_skips_a_repeat(full, path):
    with Records(path, Stub().identity()) as records:
        row = json.loads(full[1].splitlines()[0])
        assert records.get(image_digest(SAMPLES[0].image), POLICIES[0].digest) == {
            name: row[name] for name in ("verdict", "p_unsafe", "rationale", "reply")
        }
        assert records.get("0" * 64, POLICIES[0].digest) is None
        records.append([row])
        with pytest.raises(InputError, match="s0 under L1 has another answer stored"):
            records.append([row | {"p_unsafe": 0.5}])
        new = row | {"key": "0" * 64}
        with pytest.raises(InputError, match="another answer"):
            records.append([new, new | {"verdict": UNSAFE}])
    assert path.read_bytes() == full[1]


@pytest.mark.parametrize("p", [float("nan"), float("inf"), -0.1, 1.5])
def test_no_probability_no_label(path, p):
    class Broken(Stub):
        def answer(self, red, level):
            return Judgement(SAFE, p) if (red, level) == (1, 2) else super().answer(red, level)

    with pytest.raises(InputError, match=r"^s1 under L2: P\(unsafe\) is"):
        ask_all(Broken(), under(SAMPLES, POLICIES), path.parent)
    stored = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["verdict"], r["p_unsafe"]) for r in stored if "error" in r] == [(None, None)]
    judge = Stub()  # mended: the sound answers of that batch are kept, the error is asked again
    assert len(ask_all(judge, under(SAMPLES, POLICIES), path.parent)) == 15
    assert judge.asked == [(1, "L2")]


def test_a_verdict_that_is_none_is_refused(path):
    class Chatty(Stub):
        def answer(self, red, level):
            return Judgement("Unsafe", 0.9)

    with pytest.raises(InputError, match="s0 under L1: 'Unsafe' is not a verdict"):
        ask_all(Chatty(), under(SAMPLES, POLICIES), path.parent)


def test_a_judge_that_returns_too_few_is_caught(path):
    class Short(Stub):
        def judge(self, cases):
            return super().judge(cases)[1:]

    with pytest.raises(ValueError):
        ask_all(Short(), under(SAMPLES, POLICIES), path.parent)
    assert path.read_bytes() == b""


def test_a_second_run_on_the_same_file_is_refused(path):
    with Records(path, {}), pytest.raises(InputError, match="another run holds it"):
        ask_all(Stub(), under(SAMPLES, POLICIES), path.parent)
    assert len(ask_all(Stub(), under(SAMPLES, POLICIES), path.parent)) == 15
