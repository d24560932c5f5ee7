"""A parameter that is misspelt, mistyped or misread must stop before anything runs."""

import warnings

import nbformat
import papermill
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_notebook

from sgvl.common.errors import InputError
from sgvl.common.paths import NOTEBOOKS
from sgvl.run import parameters
from sgvl.run.parameters import check, declared, load_yaml, validate

CELL = """\
lr: float = 1e-5  # learning rate (ours)
steps: int = 10
model: str = "nano"
blur: bool = True
weights: list[float] = [0.5, 1.0]
names: dict[str, int] = {"a": 1}
limit: int | None = None
split: Literal["train", "test"] = "train"
"""
DEFAULTS = {
    "lr": 1e-5,
    "steps": 10,
    "model": "nano",
    "blur": True,
    "weights": [0.5, 1.0],
    "names": {"a": 1},
    "limit": None,
    "split": "train",
}


def write_notebook(path, parameters_cell, *cells):
    tagged = new_code_cell(parameters_cell, metadata={"tags": ["parameters"]})
    imports = new_code_cell("from typing import Literal")
    notebook = new_notebook(cells=[imports, tagged, *map(new_code_cell, cells)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    monkeypatch.setattr(parameters, "NOTEBOOKS", tmp_path)
    return write_notebook(tmp_path / "05_benchmark.ipynb", CELL)


def problems(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return caught.value.problems


def test_values_override_defaults(notebook):
    assert validate(notebook, {}, "p.yaml") == DEFAULTS
    values = {"lr": 1, "limit": 3, "split": "test", "weights": [1, 2.5]}
    assert validate(notebook, values, "p.yaml") == DEFAULTS | values


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"stpes": 3}, "stpes: no such parameter; did you mean steps?"),
        ({"zzz": 3}, "zzz: no such parameter; known: lr, steps, model, blur"),
        ({3: 3}, "3: no such parameter"),
        ({"steps": 1.5}, "steps: got 1.5, expected int"),
        ({"steps": True}, "steps: got True, expected int"),
        ({"steps": -1}, "steps: got -1, expected 0 or more"),
        ({"steps": "many"}, "steps: got 'many', expected int"),
        ({"lr": "1e-5"}, "lr: got the text '1e-5', expected float"),
        ({"lr": "1e-5"}, "write 1.0e-05"),
        ({"lr": float("nan")}, "lr: got nan, expected finite float"),
        ({"blur": "yes"}, "blur: got 'yes', expected bool"),
        ({"blur": 1}, "blur: got 1, expected bool"),
        ({"model": 1.1}, "model: got 1.1, expected str"),
        ({"weights": [1, "x"]}, "weights.1: got 'x', expected list[float]"),
        ({"names": {"a": None}}, "names.a: got None, expected dict[str, int]"),
        ({"limit": "all"}, "limit: got 'all', expected int | None"),
        ({"split": "tset"}, "split: got 'tset', expected one of 'train', 'test'"),
    ],
)
def test_a_wrong_value_is_named_with_its_file(notebook, values, said):
    (problem,) = problems(validate, notebook, values, "params/nano/05.yaml")
    assert problem.startswith("params/nano/05.yaml: ")
    assert said in problem


@pytest.mark.parametrize("resamples", [0, -5, 1])
def test_an_interval_needs_resamples(tmp_path, resamples):
    notebook = write_notebook(tmp_path / "a.ipynb", "resamples: int = 2000")
    (problem,) = problems(validate, notebook, {"resamples": resamples}, "p.yaml")
    assert problem == f"p.yaml: resamples: got {resamples}, expected 100 or more"


def test_all_problems_come_at_once(notebook):
    assert len(problems(validate, notebook, {"lr": "x", "steps": "y", "spilt": "train"}, "p")) == 3


@pytest.mark.parametrize(
    "line",
    [
        "lr = 1e-5",
        "lr: float",
        "lr: float = 2 * 1e-5",
        "lr: float = base",
        "lr: Path = '.'",
        "lr: list = []",
        "lr: int | str = 1",
        "lr: __import__('os').getcwd() = 1",
        "import os",
    ],
)
def test_only_typed_literals_are_parameters(tmp_path, line):
    notebook = write_notebook(tmp_path / "n.ipynb", f"steps: int = 1\n{line}\n")
    (problem,) = problems(declared, notebook)
    assert problem.startswith("n.ipynb, parameters cell, line 2: `lr") or "import os" in problem


def test_other_faults_of_a_parameters_cell(tmp_path):
    path = tmp_path / "n.ipynb"
    assert "no such file" in problems(declared, path)[0].lower()
    path.write_text("[]")
    assert "not a notebook" in problems(declared, path)[0]
    path.write_text("{")
    assert "not a notebook" in problems(declared, path)[0]
    assert "line 1" in problems(declared, write_notebook(path, "lr: float ="))[0]
    assert "twice" in problems(declared, write_notebook(path, "a: int = 1\na: int = 2"))[0]
    assert "got 'x'" in problems(declared, write_notebook(path, "a: int = 'x'"))[0]
    nbformat.write(new_notebook(), path)
    assert "no cell is tagged" in problems(declared, path)[0]


def test_yaml_reads_plain_values(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("# all defaults\n")
    assert load_yaml(path) == {}
    path.write_bytes(b"lr: 1.0e-5\r\nname: caf\xc3\xa9\r\nweights: {a: 1}\r\n")
    assert load_yaml(path) == {"lr": 1e-5, "name": "café", "weights": {"a": 1}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr: 1\nsteps: 2\nlr: 3\n", "line 3: lr is set twice"),
        ("names: {a: 1, a: 2}\n", "line 1: a is set twice"),
        ("a: &x [1]\nb: *x\n", "line 2: aliases are not allowed"),
        ("a: !!python/object/apply:os.getcwd []\n", "line 1: could not determine a constructor"),
        ("- 1\n- 2\n", "expected `name: value` lines"),
        ("just words\n", "expected `name: value` lines"),
        ("a: [1\n", "line 2: not valid YAML: expected"),
        ("a: " + "[" * 500, "recursion"),
        ("a: \x00", "p.yaml: "),
    ],
)
def test_yaml_refuses_what_a_parameter_file_has_no_use_for(tmp_path, text, said):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    (problem,) = problems(load_yaml, path)
    assert problem.startswith(str(path))
    assert said in problem


def test_a_missing_parameter_file_is_named(tmp_path):
    assert "absent.yaml" in problems(load_yaml, tmp_path / "absent.yaml")[0]


def test_check_sees_a_readers_own_edits(notebook):
    namespace = dict(DEFAULTS)
    assert check("05_benchmark", namespace) is None
    namespace |= {"lr": "1e-5", "split": "all"}
    assert len(problems(check, "05_benchmark", namespace)) == 2
    del namespace["steps"], namespace["limit"]
    (problem,) = problems(check, "05_benchmark", namespace)
    assert problem == "05_benchmark: run the parameters cell first; not set: steps, limit"


def test_warnings_in_a_notebook_name_no_line_of_code(notebook, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back at the end
    check("05_benchmark", dict(DEFAULTS))
    said = warnings.formatwarning("2 columns passed over", UserWarning, "/tmp/cell.py", 3)
    assert said == "2 columns passed over\n"


def test_check_sees_what_papermill_has_injected(notebook):
    shell = InteractiveShell()
    shell.run_cell("from typing import Literal", store_history=True)
    shell.run_cell(CELL, store_history=True)
    shell.run_cell("# Parameters\nlr = 1e-4\nstpes = 5\n", store_history=True)
    (problem,) = problems(check, "05_benchmark", shell.user_ns)
    assert problem == "05_benchmark: stpes: no such parameter; did you mean steps?"
    shell.run_cell("# Parameters\nlr = 1e-4\nsteps = 5\n", store_history=True)
    assert check("05_benchmark", shell.user_ns) is None
    settings = {name: shell.user_ns[name] for name in DEFAULTS}
    assert settings == DEFAULTS | {"lr": 1e-4, "steps": 5}


def test_plain_papermill_stops_at_check(tmp_path, monkeypatch):
    monkeypatch.setenv("SGVL_ROOT", str(tmp_path))
    (tmp_path / "notebooks").mkdir()
    cell = 'from sgvl.run.parameters import check\ncheck("n", globals())'
    notebook = write_notebook(tmp_path / "notebooks/n.ipynb", "lr: float = 1e-5", cell)
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        papermill.execute_notebook(
            notebook, tmp_path / "out.ipynb", {"l_r": 1e-4, "lr": "1e-4"}, progress_bar=False
        )
    assert caught.value.ename == "InputError"
    assert "did you mean lr?" in caught.value.evalue
    assert "got the text '1e-4'" in caught.value.evalue


def test_a_notebook_shows_bad_input_without_a_traceback(capsys):
    shell = InteractiveShell()
    shell.run_cell("from sgvl.common.errors import InputError")
    shell.run_cell("def f(): raise InputError(['a.csv: no column image', 'b: no such file'])\nf()")
    assert capsys.readouterr().out == "InputError: a.csv: no column image\nb: no such file\n"


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("00_start_here", {"things": ["knive"]}, "did you mean knife?"),
        ("04_grpo", {"variant": "full"}, "variant full continues stage 1"),
    ],
)
def test_a_notebook_refuses_values_that_do_not_go_together(name, wrong, said):
    path = NOTEBOOKS / f"{name}.ipynb"
    values = declared(path)().model_dump() | wrong
    (problem,) = parameters.value_problems(parameters.read_notebook(path), values, name)
    assert problem.startswith(f"{name}: ") and said in problem
