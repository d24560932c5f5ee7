"""Rows that wait on the disk are those that were given, whoever reads them, or one clear error."""

import copy
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from sgvl.common import spool
from sgvl.common.spool import Spool

ROWS = [{"i": i, "text": "é" * 300} for i in range(2_000)]


@pytest.fixture(params=[0, spool.IN_MEMORY * 10], ids=["on the disk", "in memory"])
def rows(request, monkeypatch):
    monkeypatch.setattr(spool, "IN_MEMORY", request.param or 1_000)
    return Spool(ROWS)


def test_threads_that_share_a_spool_read_its_rows(rows):
    order = [i * 7919 % len(ROWS) for i in range(4 * len(ROWS))]
    with ThreadPoolExecutor(4) as threads:
        assert [row["i"] for row in threads.map(rows.__getitem__, order)] == order


def test_a_copy_and_a_pickle_outlive_the_spool(rows):
    others = copy.copy(rows), copy.deepcopy(rows), pickle.loads(pickle.dumps(rows))
    del rows
    assert all(other == ROWS for other in others)


def test_a_spool_grows_by_rows_that_are_made_from_its_own(rows):
    rows.extend({"i": -rows[i]["i"]} for i in range(10))
    assert rows == ROWS + [{"i": -i} for i in range(10)]


FULL = """
import resource, signal, tempfile
from sgvl.common import commands, errors, spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
{limit}
rows = spool.Spool([{{"small": 1}}])  # needs no file
def work():
    rows.extend({{"text": "z" * 3_000}} for _ in range(1_000))
    return errors.ExitCode.DONE
raise SystemExit(commands.run(work))
"""


@pytest.mark.skipif(os.name != "posix", reason="limits and folders of POSIX")
@pytest.mark.parametrize(
    ("limit", "code", "message"),
    [
        ("resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_500,) * 2)", 4, "File too large"),
        ("tempfile.tempdir = '/gone'", 2, "/gone: cannot be written (No such file"),
        ("tempfile._candidate_tempdir_list = lambda: ['/gone']", 2, "set TMPDIR"),
    ],
)
def test_a_place_for_temporary_files_that_lacks_room_is_one_line(limit, code, message):
    command = [sys.executable, "-c", FULL.format(limit=limit)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (code, 1), ended.stderr
    assert message in ended.stderr
