"""Files of data sets: from the hub, all of one commit, or from a folder.

The hub's own client caches and resumes downloads.
"""

import re
from collections.abc import Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import httpx2
from datasets import Dataset, concatenate_datasets, config
from huggingface_hub import HfApi, constants, errors
from huggingface_hub.utils import tqdm

from sgvl.common.errors import InputError, Unavailable, raise_any
from sgvl.common.files import disk_fault
from sgvl.common.paths import user_path
from sgvl.data.images import ImageError, file_inside
from sgvl.data.real_rows import need_columns

TOKEN = "HF_TOKEN"
REASON = 200  # characters of the hub's own sentence that an error repeats
MEANWHILE = "the nano profile runs without it: python -m sgvl.run nano"


def files_of(repo: str, revision: str, pattern: str, path: str = "") -> tuple[str, dict[str, Path]]:
    """Find the files that match ``pattern`` in a folder, or else download them from the hub.

    Parameters
    ----------
    repo, revision, pattern : as ``download`` takes them
    path : a folder, relative to the current directory or the checkout; it comes before ``repo``

    Returns
    -------
    tuple
        The source, the folder's name or what ``download`` returns; and the files by their paths
        within it, sorted.

    Raises
    ------
    Unavailable
        For a folder, or a data set on the hub, that is not there.
    InputError
        If no file matches, for a link that leads out of the folder, and as ``download`` does.
    """
    if not path:
        return download(repo, revision, pattern)
    root = user_path(path)
    if not root.is_dir():
        raise Unavailable(f"{path}: no such folder")
    names = sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
    wanted = [name for name in names if fnmatch(name, pattern)]
    raise_any(
        f"{root}: {name}: not a name in UTF-8; rename the file"
        for name in wanted
        if re.search("[\ud800-\udfff]", name)
    )
    if not wanted:
        there = ", ".join(names[:10]) or "none"
        raise InputError(f"{root}: no file matches {pattern}; files: {there}")
    try:
        return root.resolve().name, {name: file_inside(name, root) for name in wanted}
    except ImageError as error:
        raise InputError(f"{root}: {error}") from None


def download(repo: str, revision: str, pattern: str) -> tuple[str, dict[str, Path]]:
    """Download the files of a data set that match ``pattern``, all from one commit.

    Parameters
    ----------
    repo : ``owner/name``
    revision : branch, tag or commit; resolved to a commit once
    pattern : as in ``fnmatch``

    Returns
    -------
    tuple
        The source, ``owner/name@1a2b3c4d`` with the commit, which ``revision`` can pin; and the
        files by their names, sorted.

    Raises
    ------
    InputError
        That says what to do: for a gate, a wrong name or revision, no such files, no network. It is
        Unavailable where there is no such data set.
    """
    with explained(repo, revision):
        client = HfApi()
        info = client.dataset_info(repo, revision=revision)
        names = sorted(file.rfilename for file in info.siblings)
        wanted = [name for name in names if fnmatch(name, pattern)]
        if not wanted:
            there = ", ".join(names[:10]) or "none"
            raise InputError(f"{repo}@{info.sha[:8]}: no file matches {pattern}; files: {there}")
        pinned = {"repo_type": "dataset", "revision": info.sha}
        files = {name: Path(client.hf_hub_download(repo, name, **pinned)) for name in wanted}
    return f"{repo}@{info.sha[:8]}", files


class _Quiet(tqdm):
    """No progress bar: one for each of thousands of pictures would stay in an executed notebook."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options | {"disable": True})


def file(repo: str, revision: str, name: str) -> Path | None:
    """Download one file of a data set; return None if the data set has none of this name."""
    what = {"repo_type": "dataset", "revision": revision, "tqdm_class": _Quiet}
    with explained(repo, revision):
        try:
            return Path(HfApi().hf_hub_download(repo, name, **what))
        except errors.RemoteEntryNotFoundError:
            return None


def parse_url(url: str) -> tuple[str, str, str] | None:
    """Return repository, revision and path of a data set's file on the hub; None for other URLs.

    The host is compared: a URL elsewhere must not be read from the hub with the reader's token.
    """
    address, _, path = url.partition("/datasets/")
    file = re.fullmatch(r"([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)(\?.*)?", path)
    own = (constants.ENDPOINT, constants._HF_DEFAULT_ENDPOINT)
    hosts = {endpoint.partition("://")[2] for endpoint in own}
    return file.groups()[:3] if file and re.sub("^https?://", "", address) in hosts else None


def parquet(
    repo: str, revision: str, pattern: str, columns: Sequence[str] = (), path: str = ""
) -> tuple[str, Dataset]:
    """Find or download Parquet files as ``files_of`` does; return the source and all their rows.

    Raises InputError as ``files_of`` does, and for a file that is not Parquet or lacks one of
    ``columns``.
    """
    source, files = files_of(repo, revision, pattern, path)
    where = f"{source}, {pattern}"
    parts = [read_parquet(file, where, columns) for file in files.values()]
    try:
        return source, concatenate_datasets(parts)
    except ValueError as error:
        raise InputError(f"{where}: the files have different columns: {error}") from None


def read_parquet(file: Path, where: str, columns: Sequence[str]) -> Dataset:
    """Read a Parquet file; raise InputError for another one, or one that lacks a column."""
    try:
        rows = Dataset.from_parquet(str(file))
    except Exception as error:  # pyarrow's and datasets' own, by the dozen
        if fault := disk_fault(error, config.HF_DATASETS_CACHE):
            raise fault from error
        raise InputError(f"{where} cannot be read: {error}") from error
    need_columns(rows.column_names, columns, where)
    return rows


@contextmanager
def explained(repo: str, revision: str):
    """Turn the client's errors into an InputError of one line: what happened and what to do."""
    page = f"{constants.ENDPOINT}/datasets/{repo}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise InputError(
            f"{repo} is gated{_reason(error)}. Accept its terms at {page} and set {TOKEN} to a "
            f"token of yours; meanwhile {MEANWHILE}"
        ) from None
    except errors.RepositoryNotFoundError:
        raise Unavailable(
            f"{repo}: no such data set at {page}, or one that {TOKEN} may not see; "
            "check the name and the token"
        ) from None
    except errors.RevisionNotFoundError:
        raise InputError(
            f"{repo} has no revision {revision!r}; its commits are at {page}"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        step = f"check what {TOKEN} may do" if status in (401, 403) else "try again"
        raise InputError(
            f"{repo}: the hub answered {status}{_reason(error)}; "
            f"{step}, finished files are kept, or see {page}"
        ) from None
    except (httpx2.HTTPError, OSError) as error:
        if fault := disk_fault(error, constants.HF_HUB_CACHE):
            raise fault from error
        cause = type(error.__cause__ or error).__name__
        raise InputError(
            f"{repo}: the hub cannot be reached ({cause}); connect, and unset HF_HUB_OFFLINE, "
            f"or try again: finished files are kept; meanwhile {MEANWHILE}"
        ) from None


def _reason(error: errors.HfHubHTTPError) -> str:
    """Return the hub's own sentence in brackets, on one line; "" if it gave none."""
    sentence = " ".join((error.server_message or "").split())[:REASON]
    return f" ({sentence.rstrip('.')})" if sentence else ""
