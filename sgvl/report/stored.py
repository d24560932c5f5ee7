"""Read what notebooks 01 to 06 have stored. A missing file is an error that names its notebook."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from sgvl.common.errors import InputError
from sgvl.common.paths import FIGURES, ROOT, figures_of, runs
from sgvl.run import why_unavailable

# The notebook that writes a folder of a run; a folder of training/ is named after its unit.
WRITERS = {
    "data": "01_data",
    "recaption": "02_recaption",
    "benchmark": "05_benchmark",
    "ablations": "06_ablations",
}
# The stored data set behind each set of Table 4; all others are questions of general ability.
DATA_SETS = {
    "UnsafeBench": "unsafebench",
    "LlavaGuard": "llavaguard_test",
    "SafeEditBench": "safeeditbench",
}


def read(profile: str, path: str) -> pd.DataFrame:
    """Read a CSV from a run folder, such as ``ablations/table2.csv``.

    Raises InputError, with the notebook that writes it, if there is no such file or it is no table.
    """
    file = runs(profile) / path
    try:
        return pd.read_csv(file)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        folder, name, *below = Path(path).parts
        writer = WRITERS.get(folder, name) + (f".{name}" if folder in WRITERS and below else "")
        problem = "no such file" if isinstance(error, FileNotFoundError) else str(error).strip()
        raise InputError(
            f"{file.relative_to(ROOT)}: {problem}; {writer} writes it "
            f"(python -m sgvl.run {profile} --only {writer})"
        ) from None


def read_scores(profile: str, panels: Sequence[str] = ()) -> pd.DataFrame:
    """Read the scores of SafeEditBench that panels of 05 have stored, one below the other.

    A panel of which no judge could be asked has none. Raises InputError as ``read`` does.
    """
    folders = [f"benchmark/{name}" for name in panels if not _unavailable(profile, name)]
    parts = [read(profile, f"{folder}/scores.csv") for folder in folders or ["benchmark"]]
    return pd.concat(parts, ignore_index=True)


def _unavailable(profile: str, panel: str) -> str:
    return why_unavailable(f"runs/{profile}/05_benchmark.{panel}")


def judge_names(profile: str) -> dict[str, str]:
    """Return the display name of each judge of 05, by id."""
    judges = read(profile, "benchmark/judges.csv")
    return dict(zip(judges["judge"], judges["name"], strict=True))


def seeds_folder(profile: str) -> Path | None:
    """Return the folder of 09's artefacts: this run's, else the published one; None for neither."""
    folders = (figures_of(profile), FIGURES / profile) if profile else ()
    return next((folder for folder in folders if (folder / "seeds.png").is_file()), None)


def sources(profile: str, sets: Iterable[str]) -> dict[str, str]:
    """Return where the pictures of each set of Table 4 come from, as the rows of 01 say."""
    texts = {}
    for name in sets:
        file = runs(profile) / "data" / f"{DATA_SETS.get(name, 'general')}.parquet"
        if file.is_file():
            texts[name] = "; ".join(pd.read_parquet(file, columns=["source"])["source"].unique())
    return texts
