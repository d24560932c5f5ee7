"""The dataset card: a README.md beside saved sets, made from their files and their manifest."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import Dataset
from huggingface_hub import DatasetCard, DatasetCardData

from sgvl.common import files
from sgvl.data import store
from sgvl.data.cases import cases_of

TEMPLATE = Path(__file__).with_name("dataset_card.md.jinja")
LICENCES = {"twemoji": "cc-by-4.0", "openmoji": "cc-by-sa-4.0"}  # of the drawings: CREDITS.md
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
NOT_FOR_ALL = "not-for-all-audiences"


def write(folder: Path, names: Sequence[str]) -> None:
    """Write README.md, the card of the sets of these names, into their ``folder``."""
    files.write(folder / "README.md", str(make_card(folder, names)))


def is_drawn(dataset: Dataset) -> bool:
    """Return True for a set of drawn scenes only, which may be public."""
    return "style" in dataset.column_names


def make_card(folder: Path, names: Sequence[str]) -> DatasetCard:
    """Fill the card's template for the sets of these names, saved in ``folder``."""
    sets = {name: store.read(name, folder) for name in names}
    styles = sorted({s for rows in sets.values() if is_drawn(rows) for s in rows.unique("style")})
    sources = {name: rows.unique("source") for name, rows in sets.items() if not is_drawn(rows)}
    return DatasetCard.from_template(
        _header(sets, styles, list(sources)),
        template_path=str(TEMPLATE),
        manifest=json.loads((folder / store.MANIFEST).read_text(encoding="utf-8")),
        styles=styles,
        sources=sources,
        sizes={name: len(rows) for name, rows in sets.items()},
        unsafe={
            name: store.labels(rows).count("unsafe")
            for name, rows in sets.items()
            if "label" in rows.column_names
        },
        shares=_unsafe_shares(sets["safeeditbench"]) if "safeeditbench" in sets else {},
    )


def _header(
    sets: Mapping[str, Dataset], styles: Sequence[str], real: Sequence[str]
) -> DatasetCardData:
    rows = sum(map(len, sets.values()))
    return DatasetCardData(
        language="en",
        # CC BY-SA is the stricter of the two.
        license="other" if real else LICENCES["openmoji" if "openmoji" in styles else "twemoji"],
        pretty_name=f"sgvl: {', '.join(real)}" if real else "sgvl nano sets",
        size_categories=next(size for limit, size in SIZES if rows < limit),
        task_categories=["image-classification", "visual-question-answering"],
        tags=["image-guardrail", "policy-following", NOT_FOR_ALL if real else "synthetic"],
        configs=[
            {
                "config_name": name,
                "data_files": [{"split": _split(rows), "path": f"{name}.parquet"}],
            }
            for name, rows in sets.items()
        ],
    )


def _split(rows: Dataset) -> str:
    """Return the split of all rows; "test" for a set of several, which its column tells apart."""
    splits = rows.unique("split") if "split" in rows.column_names else []
    return splits[0] if len(splits) == 1 else "test"


def _unsafe_shares(rows: Dataset) -> dict[str, float]:
    """Return the percentage of unsafe pictures by level."""
    cases = cases_of(rows).table
    return (100 * cases["label"].eq("unsafe").groupby(cases["policy"]).mean()).to_dict()
