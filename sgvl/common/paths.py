"""The folders of the project, each defined once.

``ROOT`` is the folder of ``notebooks/`` and ``params/``, a checkout or one that ``sgvl init`` laid
out: the one that the environment variable ``SGVL_ROOT`` names, or that the package lies in, or,
where it is installed elsewhere, that the current directory is in. Jupyter runs a notebook in the
notebook's own folder.
"""

import os
import re
from pathlib import Path

from sgvl.common.errors import InputError

PACKAGE = Path(__file__).resolve().parents[1]
POLICIES = PACKAGE / "policies"
LONGEST = 100  # characters of a name: files add digests and endings, and 255 bytes are the limit
NANO_MODEL = PACKAGE / "nano" / "model"


def _root() -> Path:
    if "SGVL_ROOT" in os.environ:
        return Path(os.environ["SGVL_ROOT"]).resolve()
    here = Path.cwd()
    return next(filter(_is_checkout, (PACKAGE.parent, here, *here.parents)), here)


def _is_checkout(folder: Path) -> bool:
    return (folder / "notebooks").is_dir() and (folder / "params").is_dir()


ROOT = _root()
NOTEBOOKS = ROOT / "notebooks"
PARAMS = ROOT / "params"
FIGURES = ROOT / "figures"
# Pictures from the web; each is downloaded once.
DOWNLOADS = Path(os.environ.get("SGVL_DOWNLOADS", ROOT / "runs" / "downloads"))


def need_checkout() -> None:
    """Raise InputError if ``ROOT`` is no checkout: nothing that a notebook needs would be there."""
    if not NOTEBOOKS.is_dir():
        raise InputError(
            f"{ROOT} has no notebooks/ and params/; work in a checkout, or in a folder that "
            "`sgvl init FOLDER` has laid out, or set SGVL_ROOT to one"
        )


def user_path(path: str | Path) -> Path:
    """Resolve a user's file or folder against the current directory, or else the checkout."""
    other = ROOT / path
    return other if os.path.exists(other) and not os.path.exists(path) else Path(path)


def own_policies() -> list[Path]:
    """Return the policy files in the folder that the environment variable SGVL_POLICIES names.

    Raises InputError if there is no such folder.
    """
    if not os.environ.get("SGVL_POLICIES"):
        return []
    folder = user_path(os.environ["SGVL_POLICIES"]).resolve()
    if not folder.is_dir():
        raise InputError(f"SGVL_POLICIES: {folder}: no such folder")
    return sorted(folder.glob("*.md"))


def plain_name(what: str, name: object) -> str:
    """Return a name that can be that of a file or folder on every system, or raise InputError."""
    if not isinstance(name, str) or not re.fullmatch(r"\w([\w.+-]*[\w+-])?", name, re.ASCII):
        raise InputError(f"{what} {name!r}: use letters, digits, '_', '-', '.' and '+'")
    if len(name) > LONGEST:
        raise InputError(f"{what} {name[:20]}...: over {LONGEST} characters; take a shorter one")
    if re.match(r"(con|prn|aux|nul|(com|lpt)\d)(\.|$)", name, re.IGNORECASE):
        raise InputError(f"{what} {name!r}: a device of Windows has this name; take another")
    return name


def runs(profile: str) -> Path:
    """Return the folder of a profile's executed notebooks and results. Does not create it.

    Raises InputError for a name that is no plain name of a folder.
    """
    return ROOT / "runs" / plain_name("profile", profile)


def figures_of(profile: str) -> Path:
    """Return the folder where a run writes its tables, figures and report. Does not create it.

    ``FIGURES / profile`` holds the published copy.
    """
    return runs(profile) / "figures"
