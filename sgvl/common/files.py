"""Files: their digests, and writing them whole or not at all."""

import csv
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sgvl.common.errors import one_line
from sgvl.common.paths import PACKAGE

FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
BARRED = (  # what a place is where nothing can be written
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
)
CELL = 32_000  # characters of a spreadsheet's cell; more would run over into the next row
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # what opens a formula, also as wide signs
NO_ROOM = 64 * 1024  # bytes; a disk with less left is full


class DiskFault(OSError):
    """A fault of the disk (full, over a quota, read-only, broken) and the file that it stopped.

    Commands end with exit code 4: the next run goes on once somebody has mended the disk.
    """

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def sha256(path: Path) -> str:
    """Return the hex digest of a file, which is read in parts."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_digest() -> str:
    """Return the hex digest of the code of ``sgvl`` as it is on the disk."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE)} {sha256(path)}\n".encode())
    return digest.hexdigest()


def disk_fault(error: BaseException, path: str | Path) -> DiskFault | None:
    """Return an error, or one that caused it, as the fault of the disk that it is, or else None.

    Parameters
    ----------
    path : named where the error names no file, as that of a failed write does not
    """
    cause = error
    while cause is not None:
        if isinstance(cause, DiskFault):
            return cause
        code = getattr(cause, "errno", None)
        # Libraries in other languages keep only the words; torch has not even these.
        codes = [code] if code in FAULTS else [c for c in FAULTS if os.strerror(c) in str(cause)]
        if not codes and type(cause) is RuntimeError and is_full(path):
            codes = [errno.ENOSPC]
        if codes:
            advice = "what is finished is kept, so mend this and run again"
            return DiskFault(codes[0], f"{os.strerror(codes[0])}; {advice}", str(path))
        cause = cause.__cause__ or cause.__context__
    return None


def is_full(path: str | Path) -> bool:
    """Check whether the file system of a file or folder has no room for another file."""
    path = Path(path).absolute()
    place = next(place for place in (path, *path.parents) if place.exists())
    stat = os.statvfs(place) if hasattr(os, "statvfs") else None  # not on Windows
    no_name_left = bool(stat and stat.f_files and not stat.f_favail)
    return shutil.disk_usage(place).free < NO_ROOM or no_name_left


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn a fault of the disk inside the block into a DiskFault that names ``path``."""
    try:
        yield
    except Exception as error:
        if fault := disk_fault(error, path):
            raise fault from error
        raise


@contextmanager
def replaced(path: str | Path, ending: str = "part") -> Iterator[Path]:
    """Yield the path of an unfinished file, which takes the place of ``path`` after the block.

    Whoever reads ``path``, also after a crash, finds the old file or the new one, whole. Raises
    DiskFault; the unfinished file is removed then.

    Parameters
    ----------
    ending : of the unfinished file; of this process alone where several write ``path`` at a time
    """
    part = Path(f"{path}.{ending}")
    try:
        with writing(path):
            yield part
            _sync(part)
            part.replace(path)
            if os.name == "posix":  # the rename is durable only once the folder is synced, too
                _sync(part.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write(path: str | Path, content: str | bytes) -> None:
    """Write a file as ``replaced`` does; text as UTF-8 with line feeds."""
    with replaced(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def write_csv(frame, path: str | Path, index: bool = False) -> None:
    """Write a pandas frame as ``replaced`` does.

    Texts are quoted only where they must be. A reader takes a carriage return outside quotes for
    the end of a row, and the writer quotes none: a frame that has one is quoted throughout.
    """
    options = {"index": index, "lineterminator": "\n"}
    text = frame.to_csv(**options)
    write(path, frame.to_csv(**options, quoting=csv.QUOTE_NONNUMERIC) if "\r" in text else text)


def write_spreadsheet(frame, path: str | Path) -> None:
    """Write a pandas frame as a CSV that spreadsheets open as it is, as ``replaced`` does.

    UTF-8 with its mark, every text quoted and on one line, cut to what a cell can hold. Text that
    a spreadsheet would take for a formula gets an apostrophe before it.
    """
    cells = frame.map(lambda value: _cell(value) if isinstance(value, str) else value)
    text = cells.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    write(path, text.encode("utf-8-sig"))


def _cell(text: str) -> str:
    text = one_line(re.sub(r"[^\S ]+", " ", text).strip())[:CELL]
    return f"'{text}" if text.startswith(FORMULA) else text


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # as Windows demands
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
