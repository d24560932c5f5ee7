"""SIGKILL at random instants of trainings, fetching, recaptioning, editing and the whole series.

``killing.py`` does it. pytest's ``--kills`` and ``--kill-seed`` choose how often and when.
"""

import json
import subprocess
import sys

import killing
import pytest

# A few minutes each.
KILLS = {"sft": 4, "grpo": 4, "fetch": 20, "recaption": 6, "edit": 6, "series": 2}


def test_every_work_is_killed():
    assert KILLS.keys() == killing.WORKS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("work", KILLS)
def test_what_is_killed_at_random_goes_on_to_the_same_bytes(
    work, tmp_path, record_property, request
):
    kills = request.config.getoption("kills") or KILLS[work]
    seed = request.config.getoption("kill_seed")
    options = ["--kills", str(kills), "--seed", str(seed)]
    command = [sys.executable, killing.__file__, work, tmp_path / work, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert not found["differing"] and found["kills"] == kills, found
    if work == "fetch":  # each kill may cost every host its request under way
        assert found["most more"].get("repeated", 0) <= 3 * killing.HOSTS, found
    record_property("measured", f"{work}: {kills} kills in {found['rounds']} runs")
