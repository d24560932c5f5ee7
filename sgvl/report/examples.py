"""Choose the pictures and texts that Figures 1, 2, 3, 5 and 7 show.

Drawn scenes are shown as they are. Published pictures are small and, by default, blurred; what is
chosen among them follows from their stored labels and from the judges' answers alone.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from datasets import Dataset
from PIL.Image import Image

from sgvl.common.errors import InputError
from sgvl.data import overview, store
from sgvl.data.cases import cases_of
from sgvl.data.images import load_image, thumbnail
from sgvl.policies.policy import Policy
from sgvl.scores import metrics
from sgvl.text.multiple_choice import lettered
from sgvl.text.verdict import SAFE, UNPARSEABLE, UNSAFE
from sgvl.world.scenes import Scene, Thing, render

SIDE = 320  # pixels of a published picture
# Way of editing by category, of the drawn pairs of Figure 2.
EDITS = {"weapons": "replace", "drugs": "replace", "crime": "remove", "hate": "distract_unsafe"}
# The drawn scenes of Figure 5.
SCENES = {
    "A sword in a museum": Scene("museum", 12, (Thing("swords", 0), Thing("clock", 3))),
    "An embrace in the park": Scene("park", 13, (Thing("hug", 1), Thing("dog", 2))),
}
STORED = "label as published"  # in place of the rule that fired


def picture(dataset: Dataset, row: int, blur: bool = True) -> Image:
    """Return the picture of a row for display: blurred unless it is drawn."""
    file = store.without_decoding(dataset.select_columns("image"))[row]["image"]
    image = load_image(file["bytes"], name=f"row {row}")
    return image if store.has_tags(dataset) else thumbnail(image, SIDE, blur)


def matched_pairs(bench: Dataset, blur: bool = True) -> tuple[list[dict], pd.DataFrame]:
    """Take some pairs of SafeEditBench for Figure 2: drawn ones by EDITS, else evenly spread ones.

    Returns what ``figures.show_pairs`` takes, and what was chosen. Raises InputError if a drawn set
    lacks one of EDITS.
    """
    if not store.has_tags(bench):
        pairs = overview.published_pairs(bench, blur=blur)
        return pairs, pd.DataFrame({"pair": [pair["title"] for pair in pairs]})
    first = {}
    for row, case in enumerate(zip(bench["category"], bench["edit"], strict=True)):
        first.setdefault(case, row)
    pairs = []
    for category, edit in EDITS.items():
        if (category, edit) not in first:
            raise InputError(f"Figure 2: no pair of category {category!r} has the edit {edit!r}")
        row = first[category, edit]  # the safe counterpart is the row after it
        original, counterpart = bench[row], bench[row + 1]
        title = f"{category}: {edit.replace('_', ', still ')}"
        pairs.append(
            {"unsafe": original["image"], "safe": counterpart["image"], "box": original["box"],
             "title": title}
        )  # fmt: skip
    return pairs, pd.DataFrame(EDITS.items(), columns=["category", "edit"])


def verdicts(
    bench: Dataset, policies: Sequence[Policy], blur: bool = True
) -> tuple[list[dict], pd.DataFrame]:
    """Label pictures under each policy, for Figure 5: SCENES, or two of a published set.

    Of a published set come the picture whose stored labels differ most between policies, and the
    next one that they treat differently.

    Returns what ``figures.show_verdicts`` takes, and a row for each picture and policy.
    """
    examples, rows = [], []
    if store.has_tags(bench):
        for title, scene in SCENES.items():
            rulings = {policy.name: policy.label(scene.tags) for policy in policies}
            labels = [{"policy": n, "label": r.label, "rule": r.rule} for n, r in rulings.items()]
            examples.append({"image": render(scene), "title": title, "verdicts": labels})
            rows += [{"picture": title, **label} for label in labels]
        return examples, pd.DataFrame(rows)
    usable = store.usable(bench)
    table = cases_of(usable, [policy.name for policy in policies]).table
    by_picture = table.pivot(index="id", columns="policy", values="label")
    by_picture = by_picture[[policy.name for policy in policies]]
    unsafe = (by_picture == UNSAFE).sum(axis=1).clip(upper=(by_picture == SAFE).sum(axis=1))
    order = by_picture.loc[unsafe.sort_values(ascending=False, kind="stable").index]
    ids = list(usable["id"])
    for id, own in order.drop_duplicates().head(2).iterrows():
        labels = [
            {"policy": name, "label": label, "rule": "", "note": STORED}
            for name, label in own.dropna().items()
        ]
        image = picture(usable, ids.index(id), blur)
        examples.append({"image": image, "title": id, "verdicts": labels})
        rows += [{"picture": id, "policy": v["policy"], "label": v["label"]} for v in labels]
    return examples, pd.DataFrame(rows)


def recaptions(
    captions: Dataset, words: pd.DataFrame, blur: bool = True
) -> tuple[list[dict], pd.DataFrame]:
    """Pair captions with their recaptions, for Figure 3.

    Parameters
    ----------
    captions : rows with id, image, caption and recaption
    words : the words of some recaptions: id, prompt, word and change

    Returns
    -------
    What ``figures.show_recaptions`` takes, and both texts of each example
    """
    words = words[words["prompt"] == "minimal_edit"]
    changes = {
        id: list(own[["word", "change"]].itertuples(index=False)) for id, own in words.groupby("id")
    }
    rows = captions.filter(lambda id: id in changes, input_columns="id")
    examples = [
        {"image": picture(rows, row, blur), "before": caption, "after": changes[id]}
        for row, (id, caption) in enumerate(zip(rows["id"], rows["caption"], strict=True))
    ]
    return examples, pd.DataFrame({"before": rows["caption"], "after": rows["recaption"]})


def policy_case(
    bench: Dataset, answers: pd.DataFrame, blur: bool = True
) -> tuple[dict, pd.DataFrame]:
    """Take the case of Figure 7: how judges treat what one policy permits and another prohibits.

    In a drawn set it is a weapon that L2 permits where it is, in a museum if there is one, and that
    L3 prohibits. Where there is none, and in a published set, it is the case about which the judges
    disagree most.

    Parameters
    ----------
    bench : the pictures, with their ids
    answers : rows with id, policy, judge, verdict, label and reply

    Returns
    -------
    What ``figures.show_replies`` takes, and the rows shown. Raises InputError if no judge was
    asked.
    """
    if answers.empty:
        raise InputError("Figure 7: no judge of `case_judges` was asked")
    ids, policies = list(bench["id"]), ["L2", "L3"]
    if not (chosen := _excepted_weapons(bench, answers)):
        [(id, policy)] = metrics.most_divided(answers)
        chosen, policies = [id], [policy]
    id = chosen[0]
    wanted = answers["policy"].isin(policies) & (answers["id"] == id)
    rows = answers.loc[wanted, ["policy", "judge", "verdict", "label", "reply"]]
    rows = rows.assign(reply=rows["reply"].fillna("no reason given"))
    example = {"image": picture(bench, ids.index(id), blur), "title": id}
    return example | {"replies": rows.to_dict("records")}, rows


def _excepted_weapons(bench: Dataset, answers: pd.DataFrame) -> list[str]:
    """List drawn weapons that L2 permits and L3 prohibits, those in a museum first."""
    label = answers.pivot_table("label", "id", "policy", "first").filter(like="weapons", axis=0)
    if not store.has_tags(bench) or not {"L2", "L3"} <= set(label):
        return []
    museums = {id for id, tags in zip(bench["id"], bench["tags"], strict=True) if "museum" in tags}
    excepted = label.index[(label["L2"] == SAFE) & (label["L3"] == UNSAFE)]
    return sorted(excepted, key=lambda id: (id not in museums, id))


def choice_case(
    questions: Sequence[Dataset], answers: pd.DataFrame, judge: str, blur: bool = True
) -> tuple[list[dict], pd.DataFrame]:
    """Take the multiple-choice question of Figure 7: does a judge answer, or fill in its form?

    Parameters
    ----------
    questions : of general ability
    answers : rows with id, judge, given, right and unparseable
    judge : whose replies decide the choice: a question that it does not answer while others do, or
        else one that it answers wrongly, or else any

    Returns
    -------
    What ``figures.show_replies`` takes, none if the judge was not asked; and the rows shown
    """
    where = {}
    for rows in questions:
        columns = [name for name in rows.column_names if name not in ("image", "images")]
        for place, row in enumerate(rows.select_columns(columns)):
            if row.get("options") or "choice" in row["category"]:
                where[row["id"]] = rows, place, row
    answers = answers[answers["id"].isin(where)]
    own = answers[answers["judge"] == judge].set_index("id")
    if own.empty:
        return [], pd.DataFrame(columns=["judge", "verdict", "label", "reply"])
    others = answers[answers["judge"] != judge].groupby("id")["right"].mean().reindex(own.index)
    rank = 4.0 * own["unparseable"] + 2 * ~own["right"].astype(bool) + others.fillna(0)
    id = rank.idxmax()
    rows, place, row = where[id]
    options = "; ".join(f"{k}: {text}" for k, text in lettered(row.get("options", ())).items())
    replies = answers[answers["id"] == id]
    verdict = replies["right"].map({True: "right", False: "wrong"})
    replies = pd.DataFrame(
        {
            "judge": replies["judge"],
            "verdict": verdict.mask(replies["unparseable"].astype(bool), UNPARSEABLE),
            "label": row["answer"],
            "reply": replies["given"].fillna("").replace("", "no option"),
        }
    )
    title = " ".join(f"{row['question']} {options}".split())
    example = {"image": _of_question(rows, place, blur), "title": title}
    return [example | {"replies": replies.to_dict("records")}], replies


def _of_question(rows: Dataset, place: int, blur: bool) -> Image:
    if "images" not in rows.column_names:
        return picture(rows, place, blur=False)  # a drawn scene without tags
    return thumbnail(load_image(rows[place]["images"][0]["bytes"]), SIDE, blur)


def method(
    captions: Dataset,
    example: Mapping,
    logs: Mapping[str, pd.DataFrame],
    case: Mapping,
) -> tuple[dict, pd.DataFrame]:
    """Collect what Figure 1 says of the two stages of this run.

    Parameters
    ----------
    captions : the rows that stage 1 was trained on
    example : a picture with its captions, as ``recaptions`` returns it
    logs : training logs, stage 1 first and stage 2 last
    case : a picture under each policy, as ``verdicts`` returns it

    Returns
    -------
    What ``figures.pipeline`` takes, and its texts
    """
    first, last = list(logs.items())[0], list(logs.items())[-1]
    facts = {
        "example": example,
        "case": case,
        "caption": "caption by the base model",
        "recaption": "recaption: harm is named, the rest is kept",
        "continues": last[0].endswith(".full"),
        "sft": f"SFT on {len(captions)} recaptions: {_course(*first, 'loss')}",
        "grpo": f"GRPO, rewarded if right under the policy: {_course(*last, 'reward')}",
        "labels": "right labels: those of one picture under each policy",
    }
    texts = [(name, text) for name, text in facts.items() if isinstance(text, str)]
    return facts, pd.DataFrame(texts, columns=["part", "text"])


def _course(unit: str, log: pd.DataFrame, column: str) -> str:
    """Return how a column of a training log went: the means of its first and its last tenth."""
    if log["step"].isna().all():
        return f"too short to be logged ({unit})"
    steps = f"{int(log['step'].max())} steps ({unit})"
    values = log[column].dropna() if column in log else []
    if not len(values):
        return steps
    tenth = max(1, len(values) // 10)
    return f"{steps}, {column} {values[:tenth].mean():.2f} to {values[-tenth:].mean():.2f}"
