"""What a reader is told of saved data: a card for people, and the same as Croissant for machines.

Both are made from the files and their manifest, so that they cannot say anything else than these.
The card is a README.md with the header that the hub reads; Croissant 1.0 is JSON-LD, which other
tools load data by (https://docs.mlcommons.org/croissant/docs/croissant-spec.html).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image, List
from huggingface_hub import DatasetCardData

from sgvl import __version__
from sgvl.data import store
from sgvl.data.cases import label_cases
from sgvl.policies.policy import load_all

# What each drawn set holds, in a clause.
ABOUT = {
    "safeeditbench": "matched pairs that differ in one box, labelled under five policies",
    "unsafebench": "nine categories under one policy, half of each unsafe",
    "llavaguard": "for training: each picture under two policies that exempt other categories",
    "llavaguard_test": "the same for testing",
    "following_neutral": "each picture under two policies of opposite label, on harmless things",
    "following_harmful": "the same on harmful things",
    "sft_images": "for training: pictures to be described",
    "safeedit_train": "for training: matched pairs, as in safeeditbench",
    "general": "questions that have nothing to do with safety, with their answers",
}
LICENCES = {"twemoji": "cc-by-4.0", "openmoji": "cc-by-sa-4.0"}  # of the drawings: CREDITS.md
URLS = {
    "cc-by-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "cc-by-sa-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "other": "see the terms of the sources that the card names",
}
PAPER = "Piao et al., Towards Policy-Adaptive Image Guardrail: Benchmark and Method, 2026"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
NOT_FOR_ALL = "not-for-all-audiences"

DRAWN = """\
Scenes that a program draws from a seed: emoji on plain backgrounds, with nothing real in them. What
is in a picture is known, so every label is computed from it by the rules of a policy, and none was
given by hand or by a model. An edited counterpart differs from its picture in one box; every other
pixel is the same.

**Intended use.** To test whether a judge reads the policy that it is given, and to train small ones
in a minute. Harmful things are drawn (a knife, a syringe), and harmless to look at.

**Limits.** A judge that does well here has not been shown to do well on photographs. Levels L1 to
L5 are this project's own texts, after the paper's worlds. Within one fixed level the labels can be
learned from pictures alone: compare levels. 01_data measures what half of the input is worth.
"""
REAL = """\
Pictures as they were published, or as their owner labelled them. Many show what their policies
prohibit. Their terms are those of the sources below, which this card does not change: most permit
research alone, and not all permit that the pictures are passed on.

**Intended use.** To judge the same rows again. **Limits.** A picture that could not be had is
missing, and its row says why in `status`: scores belong to the rows that are "ok".
"""


def write(folder: Path, names: Sequence[str]) -> None:
    """README.md and croissant.json about the sets of these names, beside their files."""
    for name, text in texts(folder, names).items():
        (folder / name).write_text(text, encoding="utf-8")


def texts(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Both files about these sets, by their names."""
    told = json.dumps(croissant(folder, names), indent=1, ensure_ascii=False)
    return {"README.md": readme(folder, names), "croissant.json": told + "\n"}


def is_drawn(dataset: Dataset) -> bool:
    """Whether a set holds drawn scenes alone, which is all that may be shown to everybody."""
    return "style" in dataset.column_names


def readme(folder: Path, names: Sequence[str]) -> str:
    """The card of these sets, which stand in ``folder``, with the header that the hub reads."""
    sets = {name: store.read(name, folder) for name in names}
    real = [name for name in sets if not is_drawn(sets[name])]
    parts = [f"# {_title(real)}\n", DRAWN] if len(real) < len(sets) else [f"# {_title(real)}\n"]
    parts += [REAL, _sources(sets, real)] if real else []
    parts += ["## Sets\n", _rows(sets)]
    if "safeeditbench" in sets:
        parts += ["Unsafe pictures of safeeditbench by level, in percent:\n", _levels(sets)]
    parts += ["## Made by\n", _made(folder, sets)]
    return f"---\n{_header(sets, real).to_yaml()}\n---\n" + "\n".join(parts)


def croissant(folder: Path, names: Sequence[str]) -> dict:
    """These sets in Croissant 1.0: files with their digests, and the columns of each."""
    manifest = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))["sets"]
    sets = {name: store.read(name, folder) for name in names}
    real = [name for name in sets if not is_drawn(sets[name])]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": _title(real),
        "description": (REAL if real else DRAWN).split("\n\n")[0].replace("\n", " "),
        "license": URLS[_licence(sets, real)],
        "citeAs": PAPER,
        "version": __version__,
        "distribution": [_file(folder, name, manifest[name]["sha256"]) for name in sets],
        "recordSet": [_record_set(name, rows.features) for name, rows in sets.items()],
    }


# -- the card --------------------------------------------------------------------------------------


def _title(real: Sequence[str]) -> str:
    return f"sgvl: {', '.join(real)}" if real else "sgvl nano sets"


def _licence(sets: Mapping[str, Dataset], real: Sequence[str]) -> str:
    if real:
        return "other"
    styles = {style for rows in sets.values() for style in rows.unique("style")}
    return LICENCES["openmoji" if "openmoji" in styles else "twemoji"]


def _header(sets: Mapping[str, Dataset], real: Sequence[str]) -> DatasetCardData:
    pictures = sum(map(len, sets.values()))
    tags = ["image-guardrail", "policy-following", *([NOT_FOR_ALL] if real else ["synthetic"])]
    files = {
        name: [{"split": split, "path": f"{name}.parquet"}]
        for name, rows in sets.items()
        for split in [_split(rows)]
    }
    return DatasetCardData(
        language="en",
        license=_licence(sets, real),
        pretty_name=_title(real),
        size_categories=next(size for limit, size in SIZES if pictures < limit),
        task_categories=["image-classification", "visual-question-answering"],
        tags=tags,
        configs=[{"config_name": name, "data_files": file} for name, file in files.items()],
    )


def _split(rows: Dataset) -> str:
    """The split of all rows; that of a set with several stands in its column."""
    found = rows.unique("split") if "split" in rows.column_names else []
    return found[0] if len(found) == 1 else "test"


def _rows(sets: Mapping[str, Dataset]) -> str:
    lines = ["| set | rows | unsafe | what it holds |", "| --- | ---: | ---: | --- |"]
    for name, rows in sets.items():
        unsafe = store.labels(rows).count("unsafe") if "label" in rows.column_names else ""
        lines.append(f"| {name} | {len(rows)} | {unsafe} | {ABOUT.get(name, 'real data')} |")
    return "\n".join(lines) + "\n"


def _levels(sets: Mapping[str, Dataset]) -> str:
    cases = label_cases(sets["safeeditbench"], load_all())
    shares = 100 * cases["label"].eq("unsafe").groupby(cases["policy"]).mean()
    lines = [f"| {' | '.join(shares.index)} |", f"|{' ---: |' * len(shares)}"]
    return "\n".join([*lines, f"| {' | '.join(f'{share:.1f}' for share in shares)} |"]) + "\n"


def _sources(sets: Mapping[str, Dataset], real: Sequence[str]) -> str:
    told = [f"- {name}: {', '.join(sets[name].unique('source'))}" for name in real]
    return "\n".join([*told, ""])


def _made(folder: Path, sets: Mapping[str, Dataset]) -> str:
    manifest = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))
    styles = sorted({s for rows in sets.values() if is_drawn(rows) for s in rows.unique("style")})
    credits = {
        "twemoji": "Twemoji (Twitter, Inc and other contributors; CC BY 4.0), changed",
        "openmoji": "OpenMoji, the open-source emoji and icon project (CC BY-SA 4.0), changed",
    }
    drawings = f" Drawings: {'; '.join(credits[style] for style in styles)}." if styles else ""
    return f"sgvl {manifest['sgvl']}, notebook 01_data, seed {manifest['seed']}.{drawings}\n"


# -- Croissant -------------------------------------------------------------------------------------

TERMS = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty"),
    *("fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField"),
    *("path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate"),
    *("separator", "source", "subField", "transform"),
)
# The specification's own: a reader warns of any other, even if it lacks only what is not used.
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{term: f"cr:{term}" for term in TERMS},
    **{term: {"@id": f"cr:{term}", "@type": "@json"} for term in ("data", "examples")},
}


def _file(folder: Path, name: str, sha256: str) -> dict:
    path = folder / f"{name}.parquet"
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": "application/x-parquet",
        "sha256": sha256,
    }


def _record_set(name: str, features: Features) -> dict:
    fields = [_field(name, column, feature) for column, feature in features.items()]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields}


def _field(name: str, column: str, feature) -> dict:
    repeated, extract = isinstance(feature, List), {"column": column}
    while isinstance(feature, List):
        feature = feature.feature
    told = {"@type": "cr:Field", "@id": f"{name}/{column}", "name": column}
    source = {"fileObject": {"@id": f"{name}.parquet"}, "extract": extract}
    if isinstance(feature, Image):
        told["dataType"] = "sc:ImageObject"
        source["transform"] = {"jsonPath": "bytes"}
    elif isinstance(feature, ClassLabel):
        told["dataType"] = "sc:Integer"
        told["description"] = ", ".join(f"{k}: {label}" for k, label in enumerate(feature.names))
    else:
        told["dataType"] = "sc:Text" if feature.dtype == "string" else "sc:Integer"
    return told | ({"repeated": True} if repeated else {}) | {"source": source}
