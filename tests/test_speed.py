"""The benchmark of GPUs, as far as a CPU can show that it works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sgvl.run.planning.models import count, published

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_random_model_has_the_shape_of_the_published_7b(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu

    expected = published()["Qwen/Qwen2.5-VL-7B-Instruct"]
    assert count(gpu.config("7b")) == expected


@pytest.mark.slow
def test_the_benchmark_of_gpus_runs_whole_in_the_size_of_nano(tmp_path):
    run = [sys.executable, BENCHMARKS / "gpu.py", "--size", "nano", "--device", "cpu"]
    run += ["--dtype", "float32", "--pictures", "2", "--steps", "2", "--reply", "8"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "read once for several cases: picture" in done.stdout
    ways = re.findall(r"^\| +(5|20) \| (.+?) +\| .* \| +(\d+) \|$", done.stdout, re.M)
    assert [(k, way) for k, way, _ in ways] == [
        (k, way)
        for k in ("5", "20")
        for way in ("one generate a pair", "plain, in batches", "engine")
    ]
    assert {same for *_, same in ways} == {"100"}, done.stdout
    trained = re.findall(r"^\| (sft|grpo) +\| +2 \| +([\d.]+) \|", done.stdout, re.M)
    assert [stage for stage, _ in trained] == ["sft", "grpo"] and all(float(s) for _, s in trained)
