"""Read what notebooks 01 to 06 have stored. A missing file is an error that names its notebook."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from sgvl.common.errors import InputError
from sgvl.common.paths import FIGURES, ROOT, figures_of, runs
from sgvl.run.units import parameters_of
from sgvl.scores.blind_ceiling import NAMES as BLIND

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
    **{name: name.lower() for name in ("MMMU", "RealWorldQA", "BLINK", "MMT")},
}


def read(profile: str, path: str) -> pd.DataFrame:
    """Read a CSV from a run folder, such as ``ablations/table2.csv``.

    Raises InputError, with the notebook that writes it, if there is no such file or it is no table.
    """
    file = runs(profile) / path
    try:
        return pd.read_csv(file, dtype={"id": str, "pair": str})
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        folder, name, *below = Path(path).parts
        writer = WRITERS.get(folder, name) + (f".{name}" if folder in WRITERS and below else "")
        problem = "no such file" if isinstance(error, FileNotFoundError) else str(error).strip()
        how = f"run notebook {writer.partition('.')[0]}"  # a run that was made by hand
        if parameters_of(profile).is_dir():
            how = f"python -m sgvl.run {profile} --only {writer}"
        raise InputError(
            f"{file.relative_to(ROOT)}: {problem}; {writer} writes it ({how})"
        ) from None


def read_panels(profile: str, name: str, panels: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV of several panels of 05, one below the other; of the only one without a name.

    Rows of judges that were asked about one set alone are left out of ``scores``, and the blind
    judges, which every panel has, come once. Raises InputError as ``read`` does.
    """
    parts = []
    for folder in _folders(panels):
        about = read(profile, f"{folder}/judges.csv")
        if len(about):  # else no judge of the panel could be asked
            own = read(profile, f"{folder}/{name}.csv")
            if name == "scores":
                seen = [judge for part in parts for judge in part["judge"] if judge in BLIND]
                levels = about.loc[about["asked_about"] == "levels", "judge"]
                own = own[~own["judge"].isin([*levels, *seen])]
            parts.append(own)
    # Without the empty tables, such as the questions of a panel that asks none: they hold no types.
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def judges(profile: str, panels: Sequence[str] = ()) -> pd.DataFrame:
    """Return the judges of panels of 05, those that could not be asked too.

    Columns: judge (id), name, model (empty where none), and reason (empty for one that was asked).
    """
    frames = [pd.DataFrame(columns=["judge", "name", "model", "reason"])]
    for folder in _folders(panels):
        frames += [read(profile, f"{folder}/{name}.csv") for name in ("judges", "not_asked")]
    return pd.concat(frames, ignore_index=True)[list(frames[0])].fillna("")


def _folders(panels: Sequence[str]) -> list[str]:
    return [f"benchmark/{panel}" for panel in panels] or ["benchmark"]


def artefacts_folder(profile: str, name: str) -> Path | None:
    """Return where a profile has an artefact: in its run, else published; None for neither."""
    folders = (figures_of(profile), FIGURES / profile) if profile else ()
    return next((folder for folder in folders if (folder / name).is_file()), None)


def sources(
    profile: str, sets: Iterable[str], judged: str = DATA_SETS["SafeEditBench"]
) -> dict[str, str]:
    """Return where the rows of each set of Table 4 come from, as 01 says; none for other sets.

    ``judged`` is the stored set in the role of SafeEditBench.
    """
    texts, folder = {}, runs(profile) / "data"
    stored = DATA_SETS | {"SafeEditBench": judged}
    for name in sets:
        file = folder / f"{stored.get(name, name)}.parquet"
        file = file if file.is_file() or name in stored else folder / "general.parquet"
        if file.is_file():
            texts[name] = "; ".join(pd.read_parquet(file, columns=["source"])["source"].unique())
    return texts
