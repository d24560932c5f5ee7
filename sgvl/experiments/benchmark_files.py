"""The answers of 05_benchmark as tables: what each holds, and its files.

Each kind of answer is a *frame*: a table with the id of its judge in the column ``judge``.

==================  ==============================================================================
frame               what it holds
==================  ==============================================================================
levels              judgements of SafeEditBench, pairs under every level
controls            the same pictures without a policy, the same policies without a picture
content             judgements of UnsafeBench; a category stands in the column policy
own                 judgements of rows that bring their own policy, such as LlavaGuard's
following_neutral   judgements of pictures under two random policies of opposite label,
following_harmful   over harmless and over harmful things
policyshift         judgements of published pictures under policies that shift
inversion           verdicts under each level and under its inversion
squares             verdicts on pictures and policies, each in two versions
general             answers to questions that have nothing to do with safety
naming              the things of the pictures, and whether a caption names them
==================  ==============================================================================

``general`` and ``naming`` hold only judges that reply to plain requests; ``naming``, ``inversion``
and ``squares`` need drawn pictures, whose content is known.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sgvl.common.errors import InputError, Unavailable
from sgvl.common.files import write_csv
from sgvl.experiments import ability, judging, squares

DRAWN_FOLLOWING = ("following_neutral", "following_harmful")
FOLLOWING = (*DRAWN_FOLLOWING, "policyshift")
# The columns of each frame, also where no judge was asked.
FRAMES = {
    "levels": [*judging.COLUMNS, "judge"],
    "controls": ["id", "pair", "policy", "label", "no_picture", "no_policy", "judge"],
    "content": [*judging.COLUMNS, "judge"],
    **dict.fromkeys(("own", *FOLLOWING), [*judging.OWN, "judge"]),
    "inversion": [
        *("id", "policy", "label", "verdict", "inverted_label", "inverted_verdict", "judge")
    ],
    "squares": squares.COLUMNS,
    "general": [*ability.QUESTIONS, "judge"],
    "naming": [*ability.THINGS, "judge"],
}
JUDGES = [
    *("judge", "name", "reads_policy", "reads_tags", "prefix_sharing", "asked_about", "model"),
    *("requests", "seconds"),  # answers whose asking was timed, and how long it took
]
NOT_ASKED = ["judge", "name", "reason"]
# Columns of numbers and of true and false; all others hold text, whatever it looks like.
NO_TEXT = {
    "p_unsafe": float,
    **dict.fromkeys(("right", "unparseable", "reads_policy", "reads_tags"), bool),
    **{"requests": int, "seconds": float},
}


class Panel(NamedTuple):
    """The judges of one or several panels, and everything that they answered."""

    judges: pd.DataFrame  # the columns of JUDGES
    frames: dict[str, pd.DataFrame]
    not_asked: pd.DataFrame = pd.DataFrame(columns=NOT_ASKED)  # judges that cannot be had, and why

    def asked_everything(self) -> list[str]:
        """Return the ids of the judges that were asked about every set."""
        return list(self.judges.query("asked_about == 'everything'")["judge"])

    def ceiling(self) -> str | None:
        """Return the id of the first judge that reads exact tags; None if there is none."""
        return next(iter(self.judges.query("reads_tags")["judge"]), None)

    @property
    def names(self) -> dict[str, str]:
        """The name to print for each judge, by id."""
        return dict(zip(self.judges["judge"], self.judges["name"], strict=True))


def joined(frames: Iterable[dict[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """Join the frames of several judges by their names; one that no judge has is empty."""
    frames, whole = list(frames), {}
    for name, columns in FRAMES.items():
        own = [parts[name] for parts in frames if name in parts]
        whole[name] = pd.concat(own, ignore_index=True) if own else pd.DataFrame(columns=columns)
    return whole


def write(panel: Panel, folder: Path) -> None:
    """Write the judges, those that were not asked, and every frame as CSV files into ``folder``.

    Raises Unavailable, after writing, if no judge of the panel could be asked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"judges": panel.judges, "not_asked": panel.not_asked, **panel.frames}
    for name, frame in tables.items():
        write_csv(frame, folder / f"{name}.csv")
    if panel.judges.empty:
        raise Unavailable(f"{row.name}: {row.reason}" for row in panel.not_asked.itertuples(False))


def read(folder: Path, panels: Sequence[str] = ()) -> Panel:
    """Read what ``write`` wrote: the panels named, in subfolders, or else ``folder`` itself.

    Raises InputError for a file that is missing, with the unit that makes it, and for a judge that
    is in two panels.
    """
    parts = [_read_panel(folder / name, name) for name in panels] or [_read_panel(folder)]
    judges = pd.concat([part.judges for part in parts], ignore_index=True)
    not_asked = pd.concat([part.not_asked for part in parts], ignore_index=True)
    ids = pd.concat([judges["judge"], not_asked["judge"]])
    if twice := sorted(ids[ids.duplicated()]):
        raise InputError(f"{folder}: judge {id} is in two panels; name it once" for id in twice)
    return Panel(judges, joined(part.frames for part in parts), not_asked)


def _read_panel(folder: Path, name: str = "") -> Panel:
    files = {stem: folder / f"{stem}.csv" for stem in ("judges", "not_asked", *FRAMES)}
    if missing := [file.name for file in files.values() if not file.is_file()]:
        unit = f"05_benchmark.{name}" if name else "notebook 05_benchmark"
        raise InputError(f"{folder} lacks {missing[0]}; run {unit} first")
    tables = {stem: _read_csv(file) for stem, file in files.items()}
    return Panel(tables.pop("judges"), frames=tables, not_asked=tables.pop("not_asked"))


def _read_csv(file: Path) -> pd.DataFrame:
    """Read a table as it was written: an id 007, a reply "NA" and an empty text stay texts."""
    return pd.read_csv(
        file,
        dtype=defaultdict(lambda: str, NO_TEXT),
        keep_default_na=False,
        na_values={"p_unsafe": [""]},
    )
