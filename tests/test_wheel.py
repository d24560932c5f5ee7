"""`sgvl init`: what a wheel holds, what is laid out, and that the commands run there."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import sgvl.__main__ as door
from sgvl.common.errors import ExitCode

ROOT = Path(__file__).parents[1]


def test_a_file_that_differs_is_kept_and_named_until_force(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(door, "PARTS", ("examples",))
    there = {file.relative_to(ROOT / "examples") for file in (ROOT / "examples").rglob("*.*")}
    folder = tmp_path / "new" / "folder"
    assert door.main(["init", str(folder)]) == ExitCode.DONE
    laid = {file.relative_to(folder / "examples") for file in folder.rglob("*.*")}
    assert laid == there and "kept" not in capsys.readouterr().out
    policy, shipped = folder / "examples" / "house.md", ROOT / "examples" / "house.md"
    policy.write_text("mine", encoding="utf-8")
    (folder / "mine.md").write_text("mine", encoding="utf-8")
    door.main(["init", str(folder)])
    (named,) = [line for line in capsys.readouterr().out.splitlines() if "house.md" in line]
    assert named.startswith("kept: ") and policy.read_text(encoding="utf-8") == "mine"
    door.main(["init", str(folder), "--force"])
    assert f"replaced: {policy}" in capsys.readouterr().out
    assert policy.read_bytes() == shipped.read_bytes() and (folder / "mine.md").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert door.main(["init", str(tmp_path / "file" / "folder")]) == ExitCode.BAD_INPUT
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
def test_a_wheel_runs_a_unit_in_an_empty_folder(tmp_path):
    """The wheel in an environment of its own, whose other packages are those of this one."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if "tests/" in name or "/runs/" in name]
    assert wheel.stat().st_size < 30e6
    venv.create(tmp_path / "env", with_pip=False)
    scripts = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    python = shutil.which("python", path=scripts)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    (packages,) = (tmp_path / "env").rglob("site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")

    ours = ("PYTHONPATH", "SGVL_ROOT")
    clean = {name: text for name, text in os.environ.items() if name not in ours}

    def run(*command, where) -> str:
        done = subprocess.run(command, cwd=where, env=clean, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    run(shutil.which("sgvl", path=scripts), "init", "work", where=tmp_path)
    work = tmp_path / "work"
    for part in door.PARTS:
        assert len([*(work / part).rglob("*.*")]) == len([*(ROOT / part).rglob("[!.]*.*")]), part
    where = run(python, "-c", "import sgvl; print(sgvl.__file__)", where=work)
    assert Path(where.strip()).is_relative_to(packages)
    unit = [python, "-m", "sgvl.run", "nano", "--only", "00_start_here"]
    run(*unit, where=work)
    status = run(*unit, "--status", where=work)
    assert status.split() == ["00_start_here", "ok"]
    verdicts = run(
        python, "-m", "sgvl.judge", "examples/photos", "--policy", "examples/quiet.md",
        "--judge", "always_unsafe", where=work,
    )  # fmt: skip
    assert "6 unsafe" in verdicts
