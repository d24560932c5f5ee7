"""A made benchmark as its readers get it: the published schema, votes, statistics, card, checksums.

    data/SPLIT-00000-of-00001.parquet    the columns of SafeEditBench as published
    annotations/cases.csv                how the votes on each case are divided, and what decided it
    annotations/votes.csv                every vote; annotators by number, without their notes
    statistics/*.csv, figures/*          of what is released
    README.md                            the card, with the text of the gate
    SHA256SUMS                           of all files, written last

The source ``safeeditbench`` reads the folder back. A case without a label is not in the data; it
stays in ``cases.csv``. ``python -m sgvl.data.push PROFILE REPO --release NAME`` sends the folder.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from datasets import ClassLabel, Dataset, Features, Image, Value
from huggingface_hub import DatasetCard, DatasetCardData

from sgvl.common import files
from sgvl.common.errors import InputError, nearest, raise_any
from sgvl.data import arrow, store
from sgvl.data.dataset_card import LICENCES, NOT_FOR_ALL, SIZES
from sgvl.data.images import has_metadata, without_metadata
from sgvl.data.sources.safeeditbench import CHECKSUMS, EDITED, LEVELS
from sgvl.policies.policy import Policy
from sgvl.text.verdict import SAFE, UNSAFE

TEMPLATE = Path(__file__).with_name("release_card.md.jinja")
TEXT = Value("string")
FEATURES = Features(
    {
        "image": Image(decode=False),
        "image_path": TEXT,
        "safety_label": ClassLabel(names=[SAFE, UNSAFE]),
        "policy_name": ClassLabel(names=list(LEVELS)),
        "policy": TEXT,
    }
)
SUFFIXES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp"}


def write_data(
    folder: Path,
    dataset: Dataset,
    decided: pd.DataFrame,
    policies: Sequence[Policy],
    split: str = "test",
) -> dict[str, str]:
    """Write the labelled cases in the published schema; what was in ``folder`` is removed first.

    Parameters
    ----------
    dataset : pairs, made by 01b or drawn; if the file of any picture holds more than a picture, all
        are written anew as PNG
    decided : of ``sgvl.editing.annotation.decide``
    policies : L1 to L5, or some of them, with the texts that were annotated

    Returns
    -------
    dict
        The released ``image_path`` of each picture by its id.

    Raises
    ------
    InputError
        For policies that the schema has no name for, for pairs whose names cannot be told apart as
        files, and if no case has a label.
    """
    names = {level: name for name, level in LEVELS.items()}
    raise_any(
        f"policy {policy.name}: the published schema has {', '.join(names)}; "
        f"{nearest(policy.name, names)}"
        for policy in policies
        if policy.name not in names
    )
    labelled = decided.dropna(subset="label")
    if labelled.empty:
        raise InputError("no case has a label; annotate first")
    rows = store.without_decoding(dataset)
    content = {row["id"]: row["image"]["bytes"] for row in rows}
    if any(map(has_metadata, content.values())):  # all, so that no file is unlike its counterpart
        content = {id_: without_metadata(file) for id_, file in content.items()}
    paths = _paths(dataset, split, content)
    texts = {policy.name: policy.render() for policy in policies}
    shutil.rmtree(folder, ignore_errors=True)
    file = folder / "data" / f"{split}-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    released = (
        {
            "image": {"bytes": content[case.id], "path": None},
            "image_path": paths[case.id],
            "safety_label": case.label,
            "policy_name": names[case.policy],
            "policy": texts[case.policy],
        }
        for case in labelled.itertuples()
    )
    with files.replaced(file) as part:
        arrow.write_rows(released, FEATURES).cast_column("image", Image()).to_parquet(part)
    return paths


def _paths(dataset: Dataset, split: str, content: Mapping[str, bytes]) -> dict[str, str]:
    """Return the published path of each picture: x, or x_edited for a counterpart."""
    drawn = "role" in dataset.column_names
    columns = dataset.select_columns(["id", "pair", *["role"] * drawn])
    paths = {}
    for row in columns:
        edited = row["role"] == "edited" if drawn else row["id"] != row["pair"]
        stem = re.sub(r"[^\w-]", "_", row["pair"], flags=re.ASCII) + EDITED * edited
        kind = next(
            (s for head, s in SUFFIXES.items() if content[row["id"]].startswith(head)), "img"
        )
        paths[row["id"]] = f"{split}_images/{stem}.{kind}"
    twins = pd.Series(paths).groupby(pd.Series(paths)).groups
    raise_any(
        f"{' and '.join(ids)} would both be {path}; rename one"
        for path, ids in twins.items()
        if len(ids) > 1
    )
    return paths


def write_annotations(
    folder: Path, paths: Mapping[str, str], decided: pd.DataFrame, votes: pd.DataFrame
) -> None:
    """Write how the cases were decided, and every vote; ``paths`` is what ``write_data`` returned.

    Notes stay here, since they may name anybody; annotators are numbered.
    """
    (folder / "annotations").mkdir(exist_ok=True)
    people = {name: k for k, name in enumerate(sorted(votes["annotator"].unique()), start=1)}
    anonymous = votes.assign(annotator=votes["annotator"].map(people)).drop(columns="note")
    for name, table in {"votes": anonymous, "cases": decided.drop(columns="pair")}.items():
        released = table.assign(id=table["id"].map(paths)).rename(columns={"id": "image_path"})
        files.write_csv(released, folder / "annotations" / f"{name}.csv")


def write_card(
    folder: Path,
    title: str,
    dataset: Dataset,
    decided: pd.DataFrame,
    statistics: Mapping[str, pd.DataFrame],
    simulated: bool,
    split: str = "test",
) -> DatasetCard:
    """Write the statistics as CSV files, and the card that holds them.

    Parameters
    ----------
    title : of the data set
    statistics : tables by caption
    simulated : whether the votes are those of a simulated panel; the card begins with that
    """
    (folder / "statistics").mkdir(exist_ok=True)
    for caption, table in statistics.items():
        name = re.sub(r"\W+", "_", caption.partition(",")[0].lower()).strip("_")
        files.write_csv(table, folder / "statistics" / f"{name}.csv")
    drawn = store.has_tags(dataset)
    style = dataset.unique("style")[0] if "style" in dataset.column_names else "twemoji"
    rows = int(decided["label"].notna().sum())
    data = DatasetCardData(
        language="en",
        license=LICENCES[style] if drawn else "other",
        pretty_name=title,
        size_categories=next(size for limit, size in SIZES if rows < limit),
        task_categories=["image-classification", "visual-question-answering"],
        tags=["image-guardrail", "policy-following", "synthetic" if drawn else NOT_FOR_ALL],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"}],
            }
        ],
        extra_gated_heading=f"Access to {title}",
        extra_gated_prompt=GATE,
        extra_gated_fields=FIELDS,
    )
    card = DatasetCard.from_template(
        data,
        template_path=str(TEMPLATE),
        drawn=drawn,
        simulated=simulated,
        rows=rows,
        pictures=dataset.unique("id"),
        pairs=dataset.unique("pair"),
        sources=list(map(_cell, dataset.unique("source"))),
        makers={
            what: list(map(_cell, dataset.unique(what)))
            for what in ("assessor", "editor")
            if what in dataset.column_names
        },
        decisions=decided["decision"].value_counts().to_dict(),
        unlabelled=int(decided["label"].isna().sum()),
        statistics={caption: _markdown(table) for caption, table in statistics.items()},
    )
    files.write(folder / "README.md", str(card))
    return card


# What a reader of the hub's page accepts before a file can be downloaded.
GATE = (
    "These pictures are for research on safety classifiers. Some show what most people would not "
    "want to see. By asking for access you agree to use them for research only, not to publish "
    "or pass on the pictures, not to identify anybody in them, and to delete them if their owner "
    "asks for it."
)
FIELDS = {
    "Name": "text",
    "Email": "text",
    "Affiliation": "text",
    "Purpose": "text",
    "I agree to these terms": "checkbox",
}


def _markdown(table: pd.DataFrame) -> str:
    """Return a table of the card; cells are escaped."""
    rounded = table.round(2).astype(object).where(table.notna(), "n/a").astype(str)
    rows = [table.columns, ["---"] * table.shape[1], *rounded.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(text: str) -> str:
    text = re.sub(r"\s+", " ", str(text)).replace("&", "&amp;").replace("<", "&lt;")
    return text.replace("|", "\\|")


def seal(folder: Path) -> Path:
    """Write the checksums of all files of a release; until then it is not finished."""
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != CHECKSUMS
    )
    lines = [f"{files.sha256(folder / name)}  {name}\n" for name in names]
    files.write(folder / CHECKSUMS, "".join(lines))
    return folder / CHECKSUMS
